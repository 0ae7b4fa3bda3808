"""Announces that the server is ready: a banner for a person at a terminal, or one event in a log."""

from __future__ import annotations

import sys
from importlib.metadata import version

import structlog

from diffcache_core.net.listening import join_host_port
from diffcache_serving.banner import Standing, build_banner
from diffcache_serving.config_file import ConfigFile
from diffcache_serving.server import Server

log = structlog.get_logger("diffcache.server")


def announce_ready(server: Server, file: ConfigFile, seconds: float) -> None:
    """Announces the server. `seconds` is the time since the start of the process."""
    listen, levels = file.config.listen, server.generator.cache.levels
    grpc = join_host_port(listen.host, listen.port)
    admin = join_host_port(listen.admin_host, listen.admin_port)
    metrics = f"http://{join_host_port(listen.metrics_host, listen.metrics_port)}/metrics"
    device = str(server.model.diffusion.device)
    if sys.stderr.isatty():
        standing = Standing(
            version=version("diffcache"),
            model=server.model.name,
            source=file.config.model.source,
            device=device,
            levels=levels,
            levels_source=server.cache.levels_source,
            entries=server.repair.entries,
            data=str(file.config.data_dir),
            grpc=grpc,
            admin=admin,
            metrics=metrics,
            tls=bool(listen.tls_certificate),
        )
        sys.stderr.write(build_banner(standing))
        sys.stderr.flush()
        return
    log.info(
        "ready",
        model=server.model.name,
        device=device,
        levels=server.cache.levels_source,
        levels_table=[f"{v.similarity:g}: {v.skip_percent}%" for v in levels.table],
        entries=server.repair.entries,
        states_missing=server.repair.states_missing,
        files_swept=server.repair.files_swept,
        config=file.revision,
        grpc=grpc,
        admin=admin,
        metrics=metrics,
        data=str(file.config.data_dir),
        seconds=round(seconds, 2),
    )
    if not levels.table:
        log.warning(
            "this model has no levels, so only EXACT hits are served: run `diffcache calibrate --model "
            f"{file.config.model.source}` to measure what may be skipped"
        )
