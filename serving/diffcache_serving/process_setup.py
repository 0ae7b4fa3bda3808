"""Prepares a process: settings for the libraries that it will import, and signal handlers for its role as the first
process of a container."""

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
    """Lets libraries keep their caches in `data_dir`, because a pod's root is read-only and its user has no home.

    Call it before they are imported. Variables that the environment already has stay. Raises OSError.
    """
    os.environ.setdefault("HF_HOME", str(data_dir / "huggingface"))
    os.environ.setdefault("XDG_CACHE_HOME", str(data_dir / "cache"))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        tempfile.gettempdir()
    except FileNotFoundError:  # torch cannot be imported without a temporary folder
        folder = data_dir / "tmp"
        folder.mkdir(exist_ok=True)
        os.environ["TMPDIR"] = str(folder)


def trust(ca_file: Path, data_dir: Path) -> None:
    """Makes libraries trust the certificates in `ca_file` (PEM) besides the usual authorities.

    Call it before they are imported. They accept only one file, so this writes a file with both. Raises ConfigError if
    `ca_file` cannot be used.
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
    """Checks the options of torch's allocator, if the environment has any. Raises ConfigError if torch refuses them.

    With wrong options torch aborts when it is imported, or fails at the first tensor on a GPU. So another process tries
    them, which takes some seconds.
    """
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
    """Forbids all libraries to call a hub. The serving process has everything that it needs in its folders."""
    os.environ["HF_HUB_OFFLINE"] = "1"


def exit_at_signals() -> None:
    """Makes SIGTERM and SIGINT end the process at once. Until it serves, there is nothing to finish.

    Linux ignores a signal that the first process of a container does not handle. So a pod that is deleted while it
    loads a model would keep its GPU until it is killed. Python's own handler of SIGINT would wait for a first picture.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: os._exit(128 + number))
