"""Starts, drains and ends a serving process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import structlog
from grpc_health.v1 import health_pb2

from diffcache_core.net.listening import join_host_port
from diffcache_core.resource.manifest import read_manifest
from diffcache_core.resource.status import TuningStatus
from diffcache_serving.cache.milvus_lite import MilvusLite
from diffcache_serving.config_file import ConfigFile
from diffcache_serving.config_watch import watch_config
from diffcache_serving.engine.loading import check_cuda, load_model
from diffcache_serving.logs import configure_logs
from diffcache_serving.model_folders import retire_others
from diffcache_serving.ready import announce_ready
from diffcache_serving.rpc.errors import IMAGE_SERVICE
from diffcache_serving.rpc.listen import ADMIN_SERVICE, bind
from diffcache_serving.server import Server, wired
from diffcache_serving.tuning.loop import LocalTuner
from diffcache_serving.values.errors import PortTaken
from diffcache_serving.warm_up import warm_up

log = structlog.get_logger("diffcache.server")

LAST_SECONDS = 1.0
"""Minimum time to send the last answers after the device has stopped. More is not possible: Kubernetes kills the pod
5 s after the drain."""


def serve(file: ConfigFile, lite: MilvusLite | None, manifest: Path | None = None) -> None:
    """Serves until SIGTERM or SIGINT. With a `manifest`, the process also tunes itself as the manifest says.

    Raises one of the errors in exit_reason.REASONS if the process cannot start or cannot continue. Raises PartEnded if
    a bug has ended one of its parts.
    """
    configure_logs(json=not sys.stderr.isatty())
    asyncio.run(_serve(file, lite, manifest))


async def _serve(file: ConfigFile, lite: MilvusLite | None, manifest: Path | None) -> None:
    config = file.config
    started = time.perf_counter()
    if config.require_cuda:
        check_cuda()
    model = await asyncio.to_thread(load_model, config.model, config.data_dir)
    retire_others(config.data_dir, model.folder)
    if lite is not None:
        await asyncio.to_thread(lite.uri)
    async with wired(config, model, lite) as server:
        await warm_up(server.generator.engine, model)
        stopping = _listen_to_signals()
        await start(server)
        metrics = server.metrics
        metrics.config_taken_over(file.revision, config.tuning.revision)
        watching = watch_config(file, server.reloader.take_over, on_attempt=metrics.config_attempted)
        server.run_beside(watching, "config")
        if manifest is not None:
            server.run_beside(_tuner(server, file, manifest).run(), "tuner")
        announce_ready(server, file, time.perf_counter() - started)
        failure = await server.vitals.failed_before(stopping)
        if failure is not None:
            log.error("the server cannot go on", error=str(failure))
        log.info("draining", in_flight=server.generator.queue.requests, grace_seconds=config.drain_seconds)
        await drain(server, config.drain_seconds)
    log.info("stopped")
    if failure is not None:
        raise failure


def _tuner(server: Server, file: ConfigFile, manifest: Path) -> LocalTuner:
    def tell(record: TuningStatus) -> None:
        server.cache.tuning = record.model_dump_json(by_alias=True)

    spec = read_manifest(manifest, private=True).spec
    registry, own = server.metrics.registry, server.model.levels.table
    return LocalTuner(spec, file.path, server.reloader.config.data_dir, registry, own, tell)


async def start(server: Server) -> None:
    """Opens the ports and reports the services as healthy. Raises PortTaken or ConfigError."""
    listen = server.reloader.config.listen
    bind(server.grpc_server, join_host_port(listen.host, listen.port), listen.tls_certificate, listen.tls_key)
    bind(server.admin_server, join_host_port(listen.admin_host, listen.admin_port))
    try:
        await server.metrics_server.start(listen.metrics_host, listen.metrics_port)
    except OSError as error:
        address = join_host_port(listen.metrics_host, listen.metrics_port)
        raise PortTaken(f"cannot listen on {address}: {error}") from None
    await server.grpc_server.start()
    await server.admin_server.start()
    for service in ("", IMAGE_SERVICE, ADMIN_SERVICE):
        await server.health.set(service, health_pb2.HealthCheckResponse.SERVING)


async def drain(server: Server, grace: float) -> None:
    """Accepts no new requests. Running requests have `grace` seconds to finish; then they get UNAVAILABLE."""
    deadline = time.monotonic() + grace
    await server.health.enter_graceful_shutdown()
    server.images.draining = True
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(server.generator.queue.idle.wait(), grace)
    await server.comparisons.close()
    await server.generator.engine.stop()
    # Finished pictures may still be in compression or on the network. A client that is cut off here gets CANCELLED, and
    # runs all steps again.
    await server.grpc_server.stop(max(LAST_SECONDS, deadline - time.monotonic()))
    await server.admin_server.stop(LAST_SECONDS)


def _listen_to_signals() -> asyncio.Event:
    """Returns an event that the first signal sets. A second signal ends the process at once."""
    stopping = asyncio.Event()

    def on_signal(number: int) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stopping
