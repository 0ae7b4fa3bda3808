"""Questions to Prometheus, asked beside the reconciles: a server may be slow, and reconciles share their workers.

A reconcile leaves a question and continues. A separate queue, of which each namespace has a small share, asks it. A
later reconcile takes the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from diffcache_core.tuning.record import seconds_of
from diffcache_core.tuning.tuner import evidence_start
from diffcache_operator.clients.prometheus import Prometheus, PrometheusError, Source
from diffcache_operator.queue import GONE, Key
from diffcache_operator.shares import Shares
from diffcache_operator.tuning.read import read_window
from diffcache_operator.tuning.window import Reading, Span

PLACES, SHARE = 8, 1
"""How many caches are asked about at once, and how many of them may be of one namespace. A slow server keeps a place
for half a minute. Each place takes a MB, or up to 34 MB if answers are hostile."""


@dataclass(frozen=True)
class Question:
    """Asks what a cache has counted. `pods`: names of the pods that count. The last three fields come from its
    record."""

    source: Source
    pods: tuple[str, ...]
    revision: int
    window_start: str
    measured_since: str

    def span(self, now: float) -> Span:
        """Returns from when on to count. A window that has not begun starts now, so there is nothing to count."""
        since = evidence_start(now, seconds_of(self.measured_since) or now)
        return Span(since, seconds_of(self.window_start) or now)


@dataclass(frozen=True)
class Answer:
    question: Question
    at: float  # when it was asked, in seconds since the epoch
    reading: Reading | PrometheusError


class Inquiries:
    """Holds questions and answers. Its queue calls `step`. It calls `on_due(key)` when there is a question, and
    `on_news(key)` when there is an answer."""

    def __init__(
        self,
        prometheus: Prometheus,
        on_due: Callable[[Key], None],
        on_news: Callable[[Key], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._prometheus, self._on_due, self._on_news, self._clock = prometheus, on_due, on_news, clock
        self._shares = Shares(PLACES, SHARE)
        self._questions: dict[Key, Question] = {}
        self._answers: dict[Key, Answer] = {}

    def ask(self, key: Key, question: Question) -> None:
        self._questions[key] = question
        self._on_due(key)

    def take(self, key: Key, question: Question) -> Answer | None:
        """Returns the answer to this question, once; None if there is none, or only one to another question. The pods
        may have changed since it was asked."""
        answer = self._answers.pop(key, None)
        if answer is None or replace(answer.question, pods=question.pods) != question:
            return None
        return answer

    def forget(self, key: Key) -> None:
        self._questions.pop(key, None)
        self._answers.pop(key, None)

    async def step(self, key: Key) -> object:
        """Asks the question of this key. Returns GONE: the next question adds the key again."""
        async with self._shares.place(key.namespace):
            question = self._questions.pop(key, None)
            if question is not None:
                await self._ask(key, question)
        return GONE

    async def _ask(self, key: Key, question: Question) -> None:
        now = self._clock()
        grids = question.span(now).grids(now)
        if grids is None:
            return  # the clock was set back
        try:
            reading: Reading | PrometheusError = await self._prometheus.look(
                question.source, partial(read_window, namespace=key.namespace, pods=question.pods, grids=grids, now=now)
            )
        except PrometheusError as error:
            reading = error
        self._answers[key] = Answer(question, now, reading)
        self._on_news(key)
