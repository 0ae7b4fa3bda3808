"""The names of commands in texts: `diffcache cache show` is `kubectl diffcache entry NAME` in a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_IN_CLUSTER = {"cache ls": "entries", "cache show": "entry"}
_say: ContextVar[Callable[[str], str]] = ContextVar("_say", default=lambda words: f"diffcache {words}")


def how_to(words: str) -> str:
    return _say.get()(words)


@contextmanager
def for_cluster(advice: Callable[[str], str], name: str) -> Iterator[None]:
    """Within this context, texts name the commands for this DiffusionCache. `advice` adds the options for cluster and
    namespace."""
    token = _say.set(lambda words: advice(f"kubectl diffcache {_IN_CLUSTER[words]} {name}"))
    try:
        yield
    finally:
        _say.reset(token)
