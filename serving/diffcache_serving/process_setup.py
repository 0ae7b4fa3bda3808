"""What a process sets for the libraries it is about to import, and for itself as the first process of a container."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

from diffcache_core.foreign import quoted
from diffcache_serving.environment import ALLOCATOR
from diffcache_serving.values.errors import ConfigError


def keep_caches_in(data_dir: Path) -> None:
    """Libraries keep their caches where we may write: a pod's root is read-only and its user has no home.

    To be called before they are imported; what the environment says already counts. Raises OSError.
    """
    os.environ.setdefault("HF_HOME", str(data_dir / "huggingface"))
    os.environ.setdefault("XDG_CACHE_HOME", str(data_dir / "cache"))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        tempfile.gettempdir()
    except FileNotFoundError:  # torch does not even import without one
        folder = data_dir / "tmp"
        folder.mkdir(exist_ok=True)
        os.environ["TMPDIR"] = str(folder)


def trust(ca_file: Path, data_dir: Path) -> None:
    """Has libraries that are about to be imported trust `ca_file` (PEM) beside the usual authorities.

    They take one file, so one is written that holds both. Raises ConfigError.
    """
    paths = ssl.get_default_verify_paths()
    usual = next((Path(p) for p in (paths.cafile, paths.openssl_cafile) if p and Path(p).is_file()), None)
    both = data_dir / "authorities.pem"
    try:
        ssl.create_default_context(cafile=str(ca_file))
        both.write_bytes((usual.read_bytes() + b"\n" if usual is not None else b"") + ca_file.read_bytes())
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the certificates of model.caSecretRef: {ca_file}: {error.strerror or error}") from None
    os.environ["SSL_CERT_FILE"] = str(both)


_TRY_ALLOCATOR = """
import sys, torch
try:
    torch._C._accelerator_setAllocatorSettings(sys.argv[1])
except (RuntimeError, ValueError) as error:
    print(str(error).splitlines()[0])
"""


def check_allocator() -> None:
    """That torch can use the options of its allocator, if the environment has any: it aborts when it is imported, or
    fails at the first tensor on a GPU. Another process tries them, in some seconds. Raises ConfigError."""
    for name in ALLOCATOR:
        value = os.environ.get(name)
        if value is None:
            continue
        others = {key: text for key, text in os.environ.items() if key not in ALLOCATOR}
        command = [sys.executable, "-c", _TRY_ALLOCATOR, value]
        tried = subprocess.run(command, env={**others, name: value}, capture_output=True, text=True, check=False)
        if tried.returncode == -signal.SIGABRT or tried.stdout:
            reason = f" ({quoted(tried.stdout)})" if tried.stdout else ""
            raise ConfigError(
                f"{name}: torch cannot use {quoted(value)!r}{reason}: write OPTION:VALUE, such as "
                "expandable_segments:True, with commas between several, or unset it"
            )


def stay_offline() -> None:
    """The serving process has all it needs in its folders: whatever it misses, no library shall ask a hub for it."""
    os.environ["HF_HUB_OFFLINE"] = "1"


def exit_at_signals() -> None:
    """SIGTERM and SIGINT end the process at once, until it serves: there is nothing to finish before.

    Linux drops a signal that the first process of a container does not handle: a pod that is deleted while it loads a
    model would hold its GPU until it is killed. And Python's own handler of SIGINT would wait for a first picture.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: os._exit(128 + number))
