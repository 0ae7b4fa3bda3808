"""The figures that serving pods report. Pods are asked outside of reconciles: a pod may be slow, and reconciles share
workers.

A reconcile says which pods exist. A separate queue asks them again and again; each round of answers causes a reconcile,
which uses the last answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from diffcache_core.kubernetes.pods import Pod
from diffcache_operator.clients.scrape import Scraper
from diffcache_operator.figures import NAMES, Figures, add, parse
from diffcache_operator.queue import GONE, Key

LOOK_SECONDS = 30.0
"""Seconds between two rounds. A lower value updates the status sooner, but each round costs a reconcile."""


@dataclass
class _Watch:
    seconds: float = LOOK_SECONDS  # between two rounds
    pods: dict[str, str] = field(default_factory=dict)  # IP address by identity
    answers: dict[str, Figures | None] = field(default_factory=dict)  # of the last round; None: no answer


class PodFigures:
    """Asks the pods. Its queue calls `step`. It calls `on_due(key)` when the queue must call it now, and `on_news(key)`
    after each round."""

    def __init__(self, scraper: Scraper, on_due: Callable[[Key], None], on_news: Callable[[Key], None]) -> None:
        self._scraper, self._on_due, self._on_news = scraper, on_due, on_news
        self._watched: dict[Key, _Watch] = {}

    def watch(self, key: Key, ready: Iterable[Pod]) -> None:
        """From now on asks exactly these pods, new ones at once."""
        pods = {_identity(pod): pod.status.pod_ip for pod in ready}
        if not pods:
            self.forget(key)
            return
        watch = self._watched.setdefault(key, _Watch())
        is_new = not pods.keys() <= watch.pods.keys()
        watch.pods = pods
        if is_new:
            self._on_due(key)

    def pace(self, key: Key, seconds: float) -> None:
        """From now on a round begins every `seconds` seconds."""
        watch = self._watched.get(key)
        if watch is not None:
            is_sooner = seconds < watch.seconds
            watch.seconds = seconds
            if is_sooner:
                self._on_due(key)

    def forget(self, key: Key) -> None:
        self._watched.pop(key, None)

    def is_known(self, key: Key) -> bool:
        """Returns whether each of the watched pods was asked."""
        watch = self._watched.get(key)
        return watch is None or watch.pods.keys() <= watch.answers.keys()

    def of(self, key: Key) -> Figures | None:
        """Returns the figures of all watched pods together; None if none of them has reported any."""
        watch = self._watched.get(key)
        if watch is None:
            return None
        known = [figures for pod in watch.pods if (figures := watch.answers.get(pod)) is not None]
        return add(known) if known else None

    async def step(self, key: Key) -> object:
        """Asks the pods once. Returns the seconds until the next round, or GONE for a cache without ready pods."""
        watch = self._watched.get(key)
        if watch is None:
            return GONE
        pods = dict(watch.pods)
        answers = await self._scraper.scrape(key.namespace, pods.values(), NAMES, parse)
        watch.answers = dict(zip(pods, answers, strict=True))
        self._on_news(key)
        return watch.seconds


def _identity(pod: Pod) -> str:
    """Returns an identity that changes with each restart: earlier answers are not about the new process."""
    ready = pod.status.condition("Ready")
    return f"{pod.metadata.uid} {ready.last_transition_time if ready is not None else None}"
