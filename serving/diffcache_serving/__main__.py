"""The serving process: `python -m diffcache_serving --config FILE`.

This module does what must happen before torch is imported: OpenMP's settings, the folder's lock, the Milvus Lite child.
"""

from __future__ import annotations

import argparse
import errno
import socket
import sys
from pathlib import Path

from diffcache_core.net.listening import ANY, join_host_port, listen_on_all
from diffcache_core.os_errors import explain_os_error
from diffcache_core.serving_config import ListenConfig
from diffcache_serving.cache.lock import lock_folder
from diffcache_serving.cache.milvus_lite import MilvusLite
from diffcache_serving.config_file import read_config_file
from diffcache_serving.exit_reason import report_exit
from diffcache_serving.openmp import set_openmp_defaults
from diffcache_serving.process_setup import check_allocator, exit_at_signals, keep_caches_in, stay_offline
from diffcache_serving.values.errors import FolderUnusable, PortTaken


def main() -> None:
    parser = argparse.ArgumentParser(prog="diffcache_serving", description="Serve a diffusion model with its cache.")
    parser.add_argument("--config", type=Path, required=True, help="ServingConfig as JSON")
    parser.add_argument("--manifest", type=Path, help="tune by this DiffusionCache; in a cluster the operator does")
    arguments = parser.parse_args()
    try:
        run(arguments.config, arguments.manifest)
    except Exception as error:
        sys.exit(report_exit(error))


def run(path: Path, manifest: Path | None = None) -> None:
    """Serves until a signal. With a `manifest`, the process also tunes itself as the manifest says.

    Raises one of the errors in exit_reason.REASONS if it cannot serve.
    """
    exit_at_signals()
    file = read_config_file(path)
    config = file.config
    make_folder(config.data_dir)
    check_ports(config.listen)
    keep_caches_in(config.data_dir)
    stay_offline()
    check_allocator()
    set_openmp_defaults(spare_cores=1)  # for the event loop and the index

    def on_wait(holder: str) -> None:
        line = f"diffcache: not ready, {config.data_dir} is held by {holder}; waiting for it"
        print(line, file=sys.stderr, flush=True)

    with lock_folder(config.data_dir, on_wait=on_wait):
        lite = MilvusLite(config.data_dir / "milvus") if config.index.type == "Lite" else None
        try:
            if lite is not None:
                lite.start()
            from diffcache_serving.lifecycle import serve  # imports torch

            serve(file, lite, manifest)
        finally:
            if lite is not None:
                lite.stop()


def make_folder(folder: Path) -> None:
    """Creates the data folder if it is missing. Raises FolderUnusable if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderUnusable(explain_os_error(error, folder, "choose another one")) from None


def check_ports(listen: ListenConfig) -> None:
    """Checks that all ports are free, before the model is loaded, which may take minutes. Raises PortTaken if not."""
    ports = {
        "--port": (listen.host, listen.port),
        "--admin-port": (listen.admin_host, listen.admin_port),
        "--metrics-port": (listen.metrics_host, listen.metrics_port),
    }
    if len({port for _, port in ports.values()}) < len(ports):
        listed = ", ".join(f"{option} {port}" for option, (_, port) in ports.items())
        raise PortTaken(f"each endpoint needs a port of its own ({listed})")
    for option, (host, port) in ports.items():
        try:
            _try_to_listen(host, port)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            of_host = isinstance(error, socket.gaierror) or getattr(error, "errno", None) in _OF_HOST
            wrong = ("--admin-host" if option == "--admin-port" else "--host") if of_host else option
            address = join_host_port(host, port)
            raise PortTaken(f"cannot listen on {address} ({reason}): choose another with {wrong}") from None


_OF_HOST = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # not an address of this machine; no IPv6 in the kernel


def _try_to_listen(host: str, port: int) -> None:
    if host == ANY:
        listen_on_all(port).close()
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignores sockets in TIME_WAIT, as servers do
        probe.bind((host, port))


if __name__ == "__main__":
    main()
