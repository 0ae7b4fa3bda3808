"""The serving process: `python -m diffcache_serving --config FILE`.

What must happen before torch is imported happens here: OpenMP's settings, the folder's lock, the Milvus Lite child.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from pathlib import Path

from pydantic import ValidationError

from diffcache_core.serving_config import ServingConfig
from diffcache_core.manifest import explain_validation
from diffcache_serving.cache.lock import FolderInUse, lock_folder
from diffcache_serving.cache.milvus_lite import MilvusLite, MilvusLiteError
from diffcache_serving.openmp import set_openmp_defaults

UNUSABLE = 2  # exit status: what we were given has to change first


def main() -> None:
    parser = argparse.ArgumentParser(prog="diffcache_serving", description="Serve a diffusion model with its cache.")
    parser.add_argument("--config", type=Path, required=True, help="ServingConfig as JSON")
    arguments = parser.parse_args()
    set_openmp_defaults(spare_cores=1)  # for the event loop and the index
    try:
        config = read_config(arguments.config)
        check_ports(config)
        lock = lock_folder(
            config.data_dir,
            on_wait=lambda holder: print(
                f"diffcache: not ready, {config.data_dir} is held by {holder}; waiting for it", file=sys.stderr
            ),
        )
    except (ConfigError, FolderInUse, PortTaken, OSError) as error:
        refuse(error)
    except KeyboardInterrupt:  # while it waits for the folder
        sys.exit(128 + signal.SIGINT)
    lite = MilvusLite(config.data_dir / "milvus") if config.index.type == "Lite" else None
    try:
        if lite is not None:
            lite.start()
        from diffcache_serving.server import serve  # imports torch

        serve(config, lite)
    except MilvusLiteError as error:
        refuse(error)
    except KeyboardInterrupt:  # before the server listens to signals itself
        sys.exit(128 + signal.SIGINT)
    finally:
        if lite is not None:
            lite.stop()
        lock.close()


class ConfigError(Exception):
    """The config, or a folder that it names, cannot be used."""


def read_config(path: Path) -> ServingConfig:
    """Raises ConfigError."""
    try:
        config = ServingConfig.model_validate_json(path.read_bytes())
        config.data_dir.mkdir(parents=True, exist_ok=True)
    except ValidationError as error:
        remedy = "let `diffcache up` or the operator write it"
        raise ConfigError(f"{path} is not a valid ServingConfig, {remedy}:\n{explain_validation(error)}") from None
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}: choose another one") from None
    return config


class PortTaken(Exception):
    """Somebody else listens there."""


def check_ports(config: ServingConfig) -> None:
    """Raises PortTaken, before minutes go into loading a model."""
    listen = config.listen
    ports = {
        "--port": (listen.host, listen.port),
        "--admin-port": (listen.admin_host, listen.admin_port),
        "--metrics-port": (listen.metrics_host, listen.metrics_port),
    }
    if len({port for _, port in ports.values()}) < len(ports):
        told = ", ".join(f"{option} {port}" for option, (_, port) in ports.items())
        raise PortTaken(f"each endpoint needs a port of its own ({told})")
    for option, (host, port) in ports.items():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a server does: not stopped by TIME_WAIT
            try:
                probe.bind((host, port))
            except (OSError, OverflowError) as error:
                reason = getattr(error, "strerror", None) or error
                raise PortTaken(f"cannot listen on {host}:{port} ({reason}): choose another with {option}") from None


def refuse(error: Exception) -> None:
    """Ends the process with what a person has to do about it, and no traceback."""
    print(f"diffcache: {error}", file=sys.stderr)
    sys.exit(UNUSABLE)


if __name__ == "__main__":
    main()
