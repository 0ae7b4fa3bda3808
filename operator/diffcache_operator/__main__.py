"""The operator: `python -m diffcache_operator`. Exit status: 0 after SIGTERM or SIGINT, 1 when it cannot work."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from diffcache_core.foreign import printable_lines, without_credentials
from diffcache_operator.clients.api import Api, ApiError, connect
from diffcache_operator.logs import configure_logs
from diffcache_operator.metrics import Metrics
from diffcache_operator.permissions import MissingPermission, check_permissions
from diffcache_operator.scopes import ScopeLost, Scopes
from diffcache_operator.session import KindGone, work
from diffcache_operator.settings import Settings, SettingsError
from diffcache_operator.together import CannotGoOn
from diffcache_operator.web import HEALTH_PORT, METRICS_PORT, CannotListen, Standing, answering

PATIENCE_SECONDS = 60.0  # how long the start waits for the API server
LOOK_SECONDS = 2.0  # between two looks while it waits for the API server or the CRD
REMIND_SECONDS = 60.0  # between two log lines about a missing CRD
NO_CRD = (
    "the CRD diffusioncaches.diffcache.io is not installed: set crds.install=true in the values of the operator's "
    "chart, or apply crds/diffusioncaches.diffcache.io.yaml; work begins when it is there"
)

log = logging.getLogger("diffcache.operator")


class CannotStart(Exception):
    """The message says what is missing."""


def main() -> None:
    debug = os.environ.get("DIFFCACHE_LOG_LEVEL") == "debug"
    try:
        chosen = Settings.from_environment(os.environ)
        configure_logs(chosen.log_level)
        asyncio.run(operate(chosen))
    except (SettingsError, CannotListen, CannotStart, CannotGoOn, MissingPermission, ApiError) as error:
        _say(str(error))
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        _say(f"unexpected {type(error).__name__}: {error} (logLevel=debug of the chart shows where)")
        sys.exit(1)


def _say(text: str) -> None:
    print(f"diffcache-operator: {printable_lines(without_credentials(text))}", file=sys.stderr)


async def operate(chosen: Settings, ports: tuple[int, int] = (HEALTH_PORT, METRICS_PORT)) -> None:
    """Runs the operator until SIGTERM. `ports`: health and metrics. Raises CannotListen, CannotStart, MissingPermission
    or ApiError."""
    metrics, standing, told_to_end = Metrics(), Standing(), asyncio.Event()
    async with connect() as api, answering(standing, metrics.registry, *ports):
        api.on_call = metrics.called
        tasks = [
            asyncio.create_task(_operate(api, chosen, metrics, standing, told_to_end), name="operator"),
            asyncio.create_task(told_to_end.wait(), name="signals"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()


async def _operate(
    api: Api, chosen: Settings, metrics: Metrics, standing: Standing, told_to_end: asyncio.Event
) -> None:
    """Waits for API server, CRD and Lease, works, and waits again when the CRD or the Lease is gone."""
    scopes = Scopes(api, chosen.identity, chosen.namespaces)

    def on_look() -> None:
        standing.waits_for = scopes.waits_for

    try:
        while True:
            _listen_to_signals(told_to_end)  # kopf replaces them with its own while it runs
            await _wait_for_cluster(api, standing)
            await check_permissions(api, chosen.namespaces)
            await scopes.wait(on_look)
            try:
                await work(api, chosen, metrics, scopes, standing)
                return
            except KindGone:
                log.warning("the CRD was deleted, and all resources with it")
            except ScopeLost as error:
                log.warning("stops its work: %s", error)
            metrics.caches.forget_all()
    finally:
        await scopes.release()


def _listen_to_signals(told_to_end: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_end.set)


async def _wait_for_cluster(api: Api, standing: Standing) -> None:
    """Returns when the API server answers and serves our kind. Raises CannotStart for a server that never answers."""
    clock = asyncio.get_running_loop().time
    deadline, remind = clock() + PATIENCE_SECONDS, 0.0
    while True:
        try:
            if await api.serves_caches():
                if remind:
                    log.info("the CRD is there")
                return
            deadline, standing.waits_for = clock() + PATIENCE_SECONDS, NO_CRD
            if clock() >= remind:
                log.warning("waits: %s", NO_CRD)
                remind = clock() + REMIND_SECONDS
        except ApiError as error:
            standing.waits_for = f"the API server does not answer: {error}"
            if clock() > deadline:
                raise CannotStart(standing.waits_for) from None
        await asyncio.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main()
