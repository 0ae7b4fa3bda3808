"""The arguments of a Redis pod, given to a real redis-server."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from diffcache_operator.desired.placement import CHART_DEFAULTS
from diffcache_operator.desired.redis import redis_stateful_set
from diffcache_operator.metadata import JSON
from tests.operator.resources import cache

pytestmark = pytest.mark.shared


def container(**provisioned: Any) -> JSON:
    resource = cache(cache={"ledger": {"type": "Provisioned", "provisioned": provisioned}})
    return redis_stateful_set(resource, "redis:1", CHART_DEFAULTS, at_work=True)["spec"]["template"]["spec"][
        "containers"
    ][0]


def probe(of: JSON, port: int) -> int:
    """What the kubelet would get to see."""
    command = [word.replace("redis-cli", f"redis-cli -p {port}") for word in of["readinessProbe"]["exec"]["command"]]
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode


@contextmanager
def running(of: JSON, folder: Path, port: int) -> Iterator[Callable[..., str]]:
    """At another port and in another folder than in its pod; ended as the kubelet does. Yields a way to ask it."""
    args = list(of["args"])
    for name, value in (("--dir", str(folder)), ("--port", str(port))):
        args[args.index(name) + 1] = value
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(args, stdout=log, stderr=log)
    try:
        while probe(of, port) != 0:
            assert process.poll() is None, (folder / "log").read_text()
        yield lambda *words: subprocess.run(
            ["redis-cli", "-p", str(port), *words], check=True, capture_output=True, text=True
        ).stdout.strip()
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_what_is_written_survives_a_restart(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> None:
    redis, (port,) = container(), free_ports(1)
    assert probe(redis, port) != 0
    with running(redis, tmp_path, port) as ask:
        assert ask("CONFIG", "GET", "protected-mode").split() == ["protected-mode", "no"]
        assert ask("CONFIG", "GET", "save").split() == ["save"]
        assert ask("SET", "entry", "state") == "OK"
    with running(redis, tmp_path, port) as ask:
        assert ask("GET", "entry") == "state"


def test_a_full_redis_refuses_and_throws_nothing_away(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> None:
    (port,) = free_ports(1)
    with running(container(resources={"limits": {"memory": "6Mi"}}), tmp_path, port) as ask:
        assert ask("CONFIG", "GET", "maxmemory").split() == ["maxmemory", str(3 * 2**20)]
        written = 0
        while "OOM" not in (told := ask("SET", f"key{written}", "x" * 100_000)):
            assert told == "OK"
            written += 1
        assert written > 0
        assert ask("DBSIZE") == str(written)
