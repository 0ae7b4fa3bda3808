"""The operator at work: watches, queues and loops. They run until the CRD is deleted, a Lease is lost or SIGTERM
comes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial

import kopf
from prometheus_client import Counter

from diffcache_operator.clients.api import Api, ApiError
from diffcache_operator.clients.prometheus import Prometheus
from diffcache_operator.clients.scrape import Scraper
from diffcache_operator.handlers import registry_for, settings
from diffcache_operator.metrics import Metrics
from diffcache_operator.permissions import check_permissions
from diffcache_operator.pod_figures import PodFigures
from diffcache_operator.queue import Key, Queue
from diffcache_operator.reconcile import ELSEWHERE_SECONDS, Reconciler, StillHalted
from diffcache_operator.scaling.loop import Scaler
from diffcache_operator.scopes import Scopes
from diffcache_operator.settings import Settings
from diffcache_operator.together import run_together
from diffcache_operator.tuning.inquiries import Inquiries
from diffcache_operator.tuning.loop import Tuner
from diffcache_operator.web import Standing

WAITING = 1000
"""Workers of each queue that waits for pods or Prometheus. A worker is a coroutine of a few KB. With fewer workers than
caches, caches with slow pods would delay the others."""
CHECK_SECONDS = 45.0
"""Seconds between two checks of our permissions, if no call was refused. Only these checks notice that a watch cannot
be renewed; kopf gives up after 54 seconds, with a less useful message. Each check costs the API server thirty questions
for each watched namespace, which it answers from memory."""
CHECK_PAUSE_SECONDS = 5.0  # pause after a check: quotas and admission policies refuse calls, too, and many at once

log = logging.getLogger("diffcache.operator")


class KindGone(Exception):
    """The CRD was deleted, and with it all resources."""


async def work(api: Api, chosen: Settings, metrics: Metrics, scopes: Scopes, standing: Standing) -> None:
    """Works until SIGTERM. Raises KindGone, ScopeLost, MissingPermission or ApiError."""

    async def reconcile(key: Key) -> object:
        with metrics.seconds.time():
            again = await reconciler.reconcile(key)
        metrics.reconciles.labels("ok").inc()
        return again

    async def look(key: Key) -> object:
        if not scopes.holds(key.namespace):
            return ELSEWHERE_SECONDS
        again = await scaler.step(key)
        metrics.scaling_looks.labels("ok").inc()
        return again

    refused = asyncio.Event()

    def on_failure(counter: Counter, key: Key, error: Exception, wait: float) -> None:
        counter.labels("error").inc()
        known = isinstance(error, ApiError | StillHalted)
        if getattr(error, "forbidden", False) or getattr(error, "status", 0) == 403:
            refused.set()  # only now, after the condition reports it
        log.log(
            logging.WARNING if known else logging.ERROR,
            "%s/%s: %s (again in %.0f s)",
            key.namespace,
            key.name,
            error,
            wait,
            exc_info=None if known else error,
        )

    def on_look() -> None:
        standing.waits_for = scopes.waits_for

    queue = Queue(reconcile, partial(on_failure, metrics.reconciles))
    scraper, prometheus = Scraper(), Prometheus(chosen.prometheus)
    pod_figures = PodFigures(scraper, lambda key: asking_pods.add(*key), partial(_tell, queue))
    inquiries = Inquiries(prometheus, lambda key: asking_prometheus.add(*key), partial(_tell, queue))
    scaler = Scaler(api, scraper, on_news=lambda key: queue.add(*key))
    # The workers of these queues wait for pods and for Prometheus; `Shares` limits how many calls run at once.
    scaling = Queue(look, partial(on_failure, metrics.scaling_looks), workers=WAITING)
    asking_pods = Queue(pod_figures.step, _log_bug, workers=WAITING)
    asking_prometheus = Queue(inquiries.step, _log_bug, workers=WAITING)
    reconciler = Reconciler(
        api,
        chosen,
        metrics,
        pod_figures,
        Tuner(chosen.prometheus, inquiries),
        scaler,
        scaling.ensure,
        queue.schedule.progressed,
        scopes.may_write,
    )
    metrics.resources.set_function(lambda: len(queue.schedule))
    metrics.running.set_function(lambda: queue.schedule.running)
    metrics.lag.set_function(lambda: max(queue.lag(), scaling.lag()))
    # Start these tasks before kopf's: at its end kopf cancels all tasks that began after it.
    others = {
        asyncio.create_task(queue.run(), name="queue"),
        asyncio.create_task(scaling.run(), name="scaling"),
        asyncio.create_task(asking_pods.run(), name="asking pods"),
        asyncio.create_task(asking_prometheus.run(), name="asking Prometheus"),
        asyncio.create_task(scopes.keep(queue.schedule.namespaces, on_look), name="leases"),
        asyncio.create_task(_keep_checking(api, chosen, refused), name="permissions"),
    }
    watching = asyncio.create_task(_watch(api, chosen, queue), name="kopf")
    on_look()
    try:
        await run_together(watching, others)  # after a signal kopf ends without an error
    finally:
        await prometheus.close()


def _tell(queue: Queue, key: Key) -> None:
    """Queues a reconcile, because pods or Prometheus answered. A key that has failed keeps its longer wait."""
    if queue.schedule.is_cared_for(key):
        queue.add(*key)


def _log_bug(key: Key, error: Exception, wait: float) -> None:
    log.error("%s/%s: %s (again in %.0f s)", *key, error, wait, exc_info=error)


async def _watch(api: Api, chosen: Settings, queue: Queue) -> None:
    """Runs kopf's watches until SIGTERM. Raises KindGone, or the error of a watch."""
    try:
        await kopf.operator(
            registry=registry_for(queue),
            settings=settings(),
            standalone=True,
            clusterwide=not chosen.namespaces,
            namespaces=chosen.namespaces,
            # Else kopf asks for the user's name, and a user id that the cluster assigned has none.
            identity=chosen.identity,  # type: ignore[arg-type]  # of a type that kopf does not export
        )
    except Exception:
        if not await api.serves_caches():
            raise KindGone from None
        raise


async def _keep_checking(api: Api, chosen: Settings, refused: asyncio.Event) -> None:
    """Checks the permissions for ever. Raises MissingPermission if a right was removed while we run.

    It checks soon after a call was `refused`, and every CHECK_SECONDS. A restart of the pod is easier to notice than a
    log line, and avoids work that is only half done.
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
