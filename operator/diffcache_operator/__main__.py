"""The operator: `python -m diffcache_operator`. Exit status 0 when told to end, 1 when it cannot do its work."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from functools import partial

import kopf
from prometheus_client import Counter

from diffcache_core.foreign import printable_lines, without_credentials
from diffcache_operator.clients.api import Api, ApiError, connect
from diffcache_operator.clients.prometheus import Prometheus
from diffcache_operator.handlers import registry_for, settings
from diffcache_operator.metrics import Metrics
from diffcache_operator.permissions import MissingPermission, check_permissions
from diffcache_operator.queue import Key, Queue
from diffcache_operator.reconcile import Reconciler, StillHalted
from diffcache_operator.scaling.loop import Scaler
from diffcache_operator.settings import Settings, SettingsError
from diffcache_operator.tuning.loop import Tuner
from diffcache_operator.web import CannotListen, Standing, answering

PATIENCE_SECONDS = 60.0  # for the API server and the CRD at the start
CHECK_SECONDS = 45.0
"""Between two looks at our permissions, if no call was refused. Only these notice that a watch cannot be renewed, and
kopf gives that up after 54 seconds, with less to say. Lower costs the API server thirty questions for each watched
namespace, which it answers from memory."""
CHECK_PAUSE_SECONDS = 5.0  # after a look: quotas and admission policies refuse calls, too, and many at once

log = logging.getLogger("diffcache.operator")


class CannotStart(Exception):
    """The message says what is missing."""


def main() -> None:
    debug = os.environ.get("DIFFCACHE_LOG_LEVEL") == "debug"
    try:
        chosen = Settings.from_environment(os.environ)
        _configure_logs(chosen.log_level)
        asyncio.run(operate(chosen))
    except (SettingsError, CannotListen, CannotStart, MissingPermission, ApiError) as error:
        _say(str(error))
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        _say(f"unexpected {type(error).__name__}: {error} (DIFFCACHE_LOG_LEVEL=debug shows where)")
        sys.exit(1)


def _say(text: str) -> None:
    print(f"diffcache-operator: {printable_lines(without_credentials(text))}", file=sys.stderr)


def _configure_logs(level: str) -> None:
    """JSON lines. Of kopf, and of the probes' requests, only what is wrong."""
    kopf.configure(log_format=kopf.LogFormat.JSON)
    logging.getLogger().setLevel(level.upper())
    if level != "debug":
        for name in ("kopf", "aiohttp.access"):
            logging.getLogger(name).setLevel(logging.WARNING)


async def operate(chosen: Settings) -> None:
    """Until SIGTERM. Raises CannotListen, CannotStart, MissingPermission or ApiError."""
    metrics, standing = Metrics(), Standing()
    async with connect() as api, answering(standing, metrics.registry):
        api.on_call = metrics.called
        await _wait_for_cluster(api)
        await check_permissions(api, chosen.namespaces)
        standing.waits_for = ""
        await _run(api, chosen, metrics)


async def _run(api: Api, chosen: Settings, metrics: Metrics) -> None:
    async def reconcile(key: Key) -> object:
        with metrics.seconds.time():
            again = await reconciler.reconcile(key)
        metrics.reconciles.labels("ok").inc()
        return again

    async def look(key: Key) -> object:
        again = await scaler.step(key)
        metrics.scaling_looks.labels("ok").inc()
        return again

    refused = asyncio.Event()

    def on_failure(counter: Counter, key: Key, error: Exception, wait: float) -> None:
        counter.labels("error").inc()
        known = isinstance(error, ApiError | StillHalted)
        if getattr(error, "forbidden", False) or getattr(error, "status", 0) == 403:
            refused.set()  # now that the condition says it
        log.log(
            logging.WARNING if known else logging.ERROR,
            "%s/%s: %s (again in %.0f s)",
            key.namespace,
            key.name,
            error,
            wait,
            exc_info=None if known else error,
        )

    queue = Queue(reconcile, partial(on_failure, metrics.reconciles))
    scaler = Scaler(api, on_news=lambda key: queue.add(*key))
    scaling = Queue(look, partial(on_failure, metrics.scaling_looks))
    reconciler = Reconciler(
        api, chosen, metrics, Tuner(Prometheus(chosen.prometheus)), scaler, scaling.ensure, queue.schedule.progressed
    )
    metrics.resources.set_function(lambda: len(queue.schedule))
    metrics.running.set_function(lambda: queue.schedule.running)
    metrics.lag.set_function(lambda: max(queue.lag(), scaling.lag()))
    # Before kopf's own, or it would cancel them as leftovers of its own when it ends.
    others = {
        asyncio.create_task(queue.run(), name="queue"),
        asyncio.create_task(scaling.run(), name="scaling"),
        asyncio.create_task(_keep_checking(api, chosen, refused)),
    }
    watching = asyncio.create_task(
        kopf.operator(
            registry=registry_for(queue),
            settings=settings(),
            standalone=True,
            clusterwide=not chosen.namespaces,
            namespaces=chosen.namespaces,
        ),
        name="kopf",
    )
    done, pending = await asyncio.wait({watching, *others}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()  # a signal ends kopf, and that without an error


async def _keep_checking(api: Api, chosen: Settings, refused: asyncio.Event) -> None:
    """Raises MissingPermission when a right was taken away while we run: soon after a call was `refused`, or in time.

    The pod that restarts says it louder than a log would, and does nothing by halves meanwhile.
    """
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_SECONDS):
                await refused.wait()
        refused.clear()
        try:
            await check_permissions(api, chosen.namespaces)
        except ApiError as error:
            log.warning("could not check permissions: %s", error)
        await asyncio.sleep(CHECK_PAUSE_SECONDS)


async def _wait_for_cluster(api: Api) -> None:
    """Returns when the API server answers and serves our kind. Raises CannotStart."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while True:
        try:
            if await api.served_schema() is not None:
                return
            trouble = "the CRD diffusioncaches.diffcache.io is not installed: apply crds/, or set crds.install=true"
        except ApiError as error:
            trouble = f"the API server does not answer: {error}"
        if asyncio.get_running_loop().time() > deadline:
            raise CannotStart(trouble)
        await asyncio.sleep(2)


if __name__ == "__main__":
    main()
