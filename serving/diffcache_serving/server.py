"""Wires everything, runs it, and takes it down in order. The only constructor of everything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog
from grpc_health.v1 import health_pb2

from diffcache_core.cache.resume import Levels
from diffcache_core.choices import Scope
from diffcache_core.foreign import first_line
from diffcache_core.generation import CacheMode, GenerationRequest, ImageFormat, InvalidRequest
from diffcache_core.net.exposition import exposition
from diffcache_core.net.http_server import HttpServer
from diffcache_core.net.listening import join_host_port
from diffcache_core.resource.manifest import read_manifest
from diffcache_core.resource.status import TuningStatus
from diffcache_core.serving_config import ServingConfig
from diffcache_serving.cache.cache import Cache, Repair
from diffcache_serving.cache.found import Miss
from diffcache_serving.cache.identity import CacheIdentity
from diffcache_serving.cache.index import Index, LayeredIndex, MemoryIndex
from diffcache_serving.cache.ledger import Budget, Ledger
from diffcache_serving.cache.milvus import Access, MilvusIndex, collection_name, collection_prefix
from diffcache_serving.cache.milvus_lite import MilvusLite
from diffcache_serving.cache.opening import open_ledger, open_store
from diffcache_serving.config_file import ConfigFile
from diffcache_serving.config_watch import NotWhole, watch_config
from diffcache_serving.defaults import choose_defaults
from diffcache_serving.engine.engine import Engine
from diffcache_serving.engine.loading import LoadedModel, check_cuda, load_model
from diffcache_serving.errors import DeviceOutOfMemory, ModelError, NotFinite, PortTaken
from diffcache_serving.generate import Generator
from diffcache_serving.images import compress
from diffcache_serving.logs import configure_logs
from diffcache_serving.metrics import Metrics
from diffcache_serving.model_folders import remove_retired, retire_others
from diffcache_serving.queueing import StepQueue
from diffcache_serving.ready import tell_ready
from diffcache_serving.reload import changes, take_hot
from diffcache_serving.rpc.errors import IMAGE_SERVICE
from diffcache_serving.rpc.listen import ADMIN_SERVICE, bind, build_servers
from diffcache_serving.rpc.servicer import CacheAdmin, ImageGeneration
from diffcache_serving.shadow.shadows import Shadows
from diffcache_serving.shadow_caches.beside import ShadowCachesBeside
from diffcache_serving.shadow_caches.feed import Feed
from diffcache_serving.tuning.loop import LocalTuner
from diffcache_serving.upkeep import keep_up
from diffcache_serving.vitals import Vitals

log = structlog.get_logger("diffcache.server")

LAST_SECONDS = 1.0
"""Least time for answers to leave once the device stopped; no more, for Kubernetes kills 5 s after the drain."""


def serve(file: ConfigFile, lite: MilvusLite | None, manifest: Path | None = None) -> None:
    """Serves until SIGTERM or SIGINT; by `manifest`, if there is one, it tunes itself.

    Raises what refusal.REASONS lists when it cannot start, or go on, and PartEnded for a bug that ended a part of it.
    """
    configure_logs(json=not sys.stderr.isatty())
    asyncio.run(_serve(file, lite, manifest))


async def _serve(file: ConfigFile, lite: MilvusLite | None, manifest: Path | None) -> None:
    config = file.config
    started = time.perf_counter()
    if config.require_cuda:
        check_cuda()
    model = await asyncio.to_thread(load_model, config.model, config.data_dir)  # until here a signal just ends us
    retire_others(config.data_dir, model.folder)
    if lite is not None:
        await asyncio.to_thread(lite.uri)
    stopping = _listen_to_signals()
    async with wired(config, model, lite) as server:
        await warm_up(server.generator.engine, model)
        await server.start()
        metrics = server.generator.metrics
        metrics.config_taken_over(file.revision, config.tuning.revision)
        watching = watch_config(file, server.take_over, on_attempt=metrics.config_attempted)
        server.run_beside(watching, "config")
        if manifest is not None:
            server.run_beside(_tuner(server, file, manifest).run(), "tuner")
        tell_ready(server, file, time.perf_counter() - started)
        failure = await server.vitals.failed_before(stopping)
        if failure is not None:
            log.error("the server cannot go on", error=str(failure))
        log.info("draining", in_flight=server.generator.queue.requests, grace_seconds=config.drain_seconds)
        await server.drain(config.drain_seconds)
    log.info("stopped")
    if failure is not None:
        raise failure


def _tuner(server: Server, file: ConfigFile, manifest: Path) -> LocalTuner:
    def tell(record: TuningStatus) -> None:
        server.admin.tuning = record.model_dump_json(by_alias=True)

    spec = read_manifest(manifest, private=True).spec
    registry, own = server.generator.metrics.registry, server.model.levels.table
    return LocalTuner(spec, file.path, server.config.data_dir, registry, own, tell)


def _listen_to_signals() -> asyncio.Event:
    """Set by the first signal; the second exits at once."""
    stopping = asyncio.Event()

    def on_signal(number: int) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stopping


async def warm_up(engine: Engine, model: LoadedModel) -> None:
    """A picture as a request that says nothing gets it: the first request is not the slow one, memory is known to
    suffice, and what fails in every request is said at once.

    Raises ModelError, or DeviceOutOfMemory.
    """
    defaults = model.defaults
    request = GenerationRequest(
        "warm up",
        0,
        True,
        defaults.steps,
        defaults.guidance,
        defaults.width,
        defaults.height,
        cache_mode=CacheMode.BYPASS,
    )
    try:
        text, _ = await engine.encode(request)
        async with engine.run(request, text, Miss()) as run:
            image = await run.image()
    except DeviceOutOfMemory:
        raise
    except InvalidRequest as error:
        raise ModelError(f"spec.model: {error}") from None
    except NotFinite as error:
        raise ModelError(
            f"model {model.name}: in a first picture {error}: set spec.model.dtype to BFloat16 or Float32; if it is "
            "that already, the weights are damaged, or the scheduler's config does not fit them (zero terminal SNR "
            "needs v_prediction)"
        ) from None
    except Exception as error:  # parts that do not fit each other fail anywhere, as anything
        raise ModelError(
            f"model {model.name} cannot draw a first picture ({first_line(error)}): its parts do not fit each other, "
            "copy the model again"
        ) from error
    for fmt in ImageFormat:  # Pillow imports each format's code at its first use
        await asyncio.to_thread(compress, image, fmt)


@dataclass
class Server:
    """Everything that runs."""

    config: ServingConfig
    model: LoadedModel
    generator: Generator
    images: ImageGeneration
    admin: CacheAdmin
    health: Any
    grpc_server: Any
    admin_server: Any
    metrics_server: HttpServer
    repair: Repair
    shadows: Shadows
    shadow_caches: ShadowCachesBeside
    vitals: Vitals
    background: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        listen = self.config.listen
        bind(self.grpc_server, join_host_port(listen.host, listen.port), listen.tls_certificate, listen.tls_key)
        bind(self.admin_server, join_host_port(listen.admin_host, listen.admin_port))
        try:
            await self.metrics_server.start(listen.metrics_host, listen.metrics_port)
        except OSError as error:
            address = join_host_port(listen.metrics_host, listen.metrics_port)
            raise PortTaken(f"cannot listen on {address}: {error}") from None
        await self.grpc_server.start()
        await self.admin_server.start()
        for service in ("", IMAGE_SERVICE, ADMIN_SERVICE):
            await self.health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def run_beside(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Starts what runs as long as the server."""
        task = asyncio.create_task(work, name=name)
        self.background.append(task)
        self.vitals.watch(task)

    async def take_over(self, file: ConfigFile) -> None:
        """What of a new config may change now changes now; twice is the same. Raises NotWhole, naming what hangs.

        A default size or N that the model cannot make changes nothing. All other parts are tried, whatever another one
        does.
        """
        config = take_hot(self.config, file.config)
        try:
            defaults = choose_defaults(config.model, self.model.own_size, self.model.diffusion.size_multiple)
            await asyncio.to_thread(self.model.diffusion.step_counts.check, defaults.steps)
            levels, source = choose_levels(config, self.model)
        except (ModelError, InvalidRequest) as error:
            raise NotWhole({"defaults": str(error)}) from None
        except ValueError as error:
            raise NotWhole({"levels": str(error)}) from None
        changed, waits = changes(self.config, config), changes(config, file.config)
        self.config = config
        self.images.defaults, self.admin.levels_source = defaults, source
        self.generator.engine.max_batch = config.batch_max_size
        self.generator.queue.max_steps = config.queue_max_steps
        self.generator.cache.set_levels(levels)
        self.generator.metrics.levels_in_force(levels)
        self.generator.metrics.queue_max_steps.set(config.queue_max_steps)
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "cache": lambda: self.generator.cache.resize(budget_of(config)),
            "quality": lambda: self.shadows.configure(config.quality),
            "shadow_caches": lambda: self.shadow_caches.configure(config, levels),
        }
        hanging = {}
        for part, change in parts.items():
            try:
                await change()
            except Exception as error:  # a ledger that is down, a full disk, a bug: each has its own type
                hanging[part] = repr(error)
        if hanging:
            if changed:  # else it is a further attempt
                log.warning("config reloaded in part", revision=file.revision, changed=changed)
            raise NotWhole(hanging)
        self.generator.metrics.config_taken_over(file.revision, config.tuning.revision)
        log.info("config reloaded", revision=file.revision, changed=changed, at_next_start=sorted(waits))

    async def drain(self, grace: float) -> None:
        """No new requests; those in flight get `grace` seconds, then UNAVAILABLE."""
        deadline = time.monotonic() + grace
        await self.health.enter_graceful_shutdown()
        self.images.draining = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.generator.queue.idle.wait(), grace)
        await self.shadows.close()
        await self.generator.engine.stop()
        # Pictures that are drawn may still be compressed or on their way: who is cut off here is told CANCELLED, which
        # nobody retries.
        await self.grpc_server.stop(max(LAST_SECONDS, deadline - time.monotonic()))
        await self.admin_server.stop(LAST_SECONDS)


@contextlib.asynccontextmanager
async def wired(config: ServingConfig, model: LoadedModel, lite: MilvusLite | None) -> AsyncIterator[Server]:
    metrics = Metrics(model.name)
    metrics.build_info.labels(version("diffcache"), model.name, model.diffusion.device.type).set(1)
    metrics.model_info.labels(model.name, model.fingerprint).set(1)
    levels, source = choose_levels(config, model)
    metrics.levels_in_force(levels)
    metrics.queue_max_steps.set(config.queue_max_steps)
    ledger = await open_ledger(config, metrics)
    index = _build_index(config, model, ledger, lite, metrics)
    identity = CacheIdentity.of(model, shared=config.cache.scope is Scope.SHARED)
    store = open_store(config, metrics)
    cache = Cache(ledger, store, index, metrics, identity, levels, config.cache.state, budget_of(config))

    def on_queue_change(steps: float, requests: int) -> None:
        metrics.pending_steps.set(steps)
        metrics.queue_depth.set(requests)

    own_width, own_height = model.own_size
    queue = StepQueue(config.queue_max_steps, on_queue_change, own_width * own_height)

    def on_call(seconds: float, size: int, pixels: int) -> None:
        work = size * queue.cost(pixels)
        metrics.step_seconds.observe(seconds / work)
        metrics.device_seconds.inc(seconds)
        queue.measured(seconds / work)

    def on_memory(call: str) -> None:
        metrics.out_of_memory.labels(call).inc()
        log.warning("a call of the device ran out of memory", call=call)

    vitals = Vitals()
    engine = Engine(model.diffusion, config.batch_max_size, on_call, on_memory)
    vitals.watch_future("the device thread", engine.ended)
    shadows = Shadows(queue, engine, cache, metrics)
    feed = Feed(identity, metrics)
    shadow_caches = ShadowCachesBeside(feed, ledger, metrics, on_start=vitals.watch_until_cancelled)
    generator = Generator(queue, engine, cache, metrics, shadows, feed)
    repair = await cache.repair()
    images, admin = ImageGeneration(generator, model), CacheAdmin(generator, model, source)
    grpc_server, admin_server, servicer = build_servers(images, admin, metrics)
    metrics_server = HttpServer(exposition(metrics.registry))
    server = Server(
        config,
        model,
        generator,
        images,
        admin,
        servicer,
        grpc_server,
        admin_server,
        metrics_server,
        repair,
        shadows,
        shadow_caches,
        vitals,
    )
    server.run_beside(
        keep_up(
            cache,
            read_grace_seconds=lambda: server.config.space_grace_seconds,
            remove_models=lambda before: remove_retired(config.data_dir, before),
        ),
        "upkeep",
    )
    vitals.watch(*cache.tasks, shadows.task)
    try:
        await shadows.configure(config.quality)
        await shadow_caches.configure(config, levels)
        yield server
    finally:
        await cancel_all(server.background)
        await shadows.close()
        await shadow_caches.close()
        await engine.stop()
        await cache.close()
        metrics_server.close()  # last: whoever scrapes sees the end, too


async def cancel_all(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def choose_levels(config: ServingConfig, model: LoadedModel) -> tuple[Levels, str]:
    """The levels in force, and where they come from."""
    own = config.cache.level_table(model.levels.reseed_skip_percent)
    if own is None:
        return model.levels, model.levels_source
    return own, "tuner" if config.tuning.chose_levels else "manifest"


def budget_of(config: ServingConfig) -> Budget:
    return Budget(config.cache.capacity_bytes, config.cache.max_entries)


def _build_index(
    config: ServingConfig, model: LoadedModel, ledger: Ledger, lite: MilvusLite | None, metrics: Metrics
) -> Index:
    if config.index.type == "Memory":
        metrics.index_up.set(1)
        return MemoryIndex()
    dim = model.diffusion.key_dim

    def prefix() -> str:
        if not ledger.id:
            raise LookupError("the ledger, whose id is in the names of the collections, has not answered yet")
        return collection_prefix(config.name, ledger.id)

    def on_error(operation: str, error: Exception) -> None:
        metrics.index_errors.labels(operation).inc()
        log.warning("the index was not written", error=str(error))

    backing = MilvusIndex(
        lite.uri if lite else lambda: config.index.uri,
        lambda: collection_name(prefix(), model.fingerprint, dim),
        dim,
        access=Access(config.index.token_file, config.index.ca_file, config.index.database),
        siblings=prefix,
        flushes=lite is not None,
        on_outcome=metrics.index_up.set,
    )
    return LayeredIndex(backing, on_error, shared=config.cache.is_shared)
