"""The tuner's window out of a real Prometheus, which holds two days of two pods' counters."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from diffcache_core.names import QUALITY_PAIRS, QUALITY_SUM, REQUEST_SECONDS, START_TIME, STEPS, STEPS_SKIPPED
from diffcache_operator.clients.prometheus import Access, Prometheus, Refused, Source
from diffcache_operator.tuning.read import read_window
from diffcache_operator.tuning.window import Grid, Reading, Span

pytestmark = pytest.mark.clients

SCRAPE = 60
HOURS = 48
NOW = float(int(time.time()) // SCRAPE * SCRAPE)
BEGIN = NOW - HOURS * 3600


@dataclass
class Pod:
    """Counts one request of 8 steps a minute, 2 of them skipped, and compares every tenth."""

    name: str
    namespace: str
    started: float
    requests: int = 0

    def exposed(self, at: float) -> list[tuple[str, str]]:
        pairs = self.requests // 10
        quality = [(f'{QUALITY_SUM}{{moment="{moment}",%s}}', pairs * q) for moment, q in _MOMENTS.items()]
        buckets = [
            (f'{REQUEST_SECONDS}_bucket{{le="{le}",model="m",result="miss",%s}}', n) for le, n in self._buckets()
        ]
        found = [
            (f"{START_TIME}{{%s}}", self.started),
            (f"{STEPS}{{%s}}", 8.0 * self.requests),
            (f"{STEPS_SKIPPED}{{%s}}", 2.0 * self.requests),
            (f'{QUALITY_PAIRS}{{skip="20",similarity="0.80",%s}}', float(pairs)),
            *((name.replace("%s", 'skip="20",similarity="0.80",%s'), value) for name, value in quality),
            *buckets,
        ]
        own = f'namespace="{self.namespace}",pod="{self.name}",job="pods"'
        return [(name % own, f"{value} {at:.0f}") for name, value in found]

    def _buckets(self) -> list[tuple[str, float]]:
        return [("1.0", self.requests * 0.5), ("3.0", float(self.requests)), ("+Inf", float(self.requests))]


_MOMENTS = {"c": 0.5, "u": 0.6, "cc": 0.25, "uu": 0.36, "cu": 0.3}


def history() -> str:
    """One pod lives on; the other is replaced every five hours, and one of a like name is somebody else's."""
    rows: dict[str, list[str]] = {}
    steady, other = Pod("emoji-0", "demo", BEGIN - 7200, 500), Pod("emoji-1", "demo", BEGIN - 3600, 100)
    foreign = Pod("emoji-0", "elsewhere", BEGIN, 0)
    for minute in range(HOURS * 60 + 1):
        at = BEGIN + minute * SCRAPE
        if minute % 300 == 299:
            other.started, other.requests = at, 0
        for pod in (steady, other, foreign):
            pod.requests += 1
            for name, value in pod.exposed(at):
                rows.setdefault(name, []).append(f"{name} {value}")
    families: dict[str, list[str]] = {}
    for name, lines in rows.items():
        families.setdefault(name.partition("{")[0], []).extend(lines)
    text = [line for lines in families.values() for line in lines]
    return "\n".join(text) + "\n# EOF\n"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    programs = [shutil.which(name) for name in ("prometheus", "promtool")]
    assert all(programs), "run `make test-clients`"
    prometheus, promtool = map(str, programs)
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "history.txt").write_text(history())
    (folder / "prometheus.yml").write_text("scrape_configs: []\n")
    blocks = [promtool, "tsdb", "create-blocks-from", "openmetrics", str(folder / "history.txt"), str(folder / "data")]
    subprocess.run(blocks, check=True, capture_output=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        prometheus,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=error",
    ]
    with subprocess.Popen(command) as process:
        try:
            _wait_until_ready(f"http://{address}/-/ready", process)
            yield f"http://{address}"
        finally:
            process.terminate()


def _wait_until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("prometheus did not start")


async def read(url: str, namespace: str, pods: tuple[str, ...], grids: tuple[Grid, Grid]) -> Reading:
    ask = partial(read_window, namespace=namespace, pods=pods, grids=grids, now=NOW)
    return await Prometheus(Access(url)).look(Source(url), ask)


async def test_a_window_of_two_pods(url: str) -> None:
    span = Span(comparisons=BEGIN, figures=NOW - 4 * 3600)
    grids = span.grids(NOW)
    assert grids is not None
    reading = await read(url, "demo", ("emoji-0", "emoji-1"), grids)
    window = reading.window
    assert reading.bad == ()
    assert window.newest == NOW
    # Two pods, a request a minute, to a scrape at either end; one that is replaced takes its last counts with it.
    lost = grids[1].step / SCRAPE
    whole = 2 * (grids[1].end - grids[1].start) / SCRAPE
    assert whole - lost - 2 <= window.requests <= whole + 2
    assert window.steps == pytest.approx(8 * window.requests)
    assert window.measured_ssr == pytest.approx(0.25)
    assert window.p95_seconds == pytest.approx(1 + 2 * 0.9)
    pairs = [sums for batch in window.batches for sums in batch.pairs.values()]
    compared = sum(sums.n for sums in pairs)
    assert 2 * HOURS * 6 * 0.8 < compared <= 2 * HOURS * 6
    assert sum(sums.c for sums in pairs) == pytest.approx(0.5 * compared)
    assert {key for batch in window.batches for key in batch.pairs} == {(20, 0.8)}


async def test_of_a_cache_that_nobody_scrapes_there_is_nothing(url: str) -> None:
    grids = Span(NOW - 3600, NOW - 3600).grids(NOW)
    assert grids is not None
    for namespace, pod in (("demo", "emoji-2"), ("none", "emoji-0"), ("demo", "emoji")):
        reading = await read(url, namespace, (pod,), grids)
        assert (reading.window.newest, reading.window.requests, reading.bad) == (None, 0, ())


async def test_a_query_that_prometheus_does_not_take(url: str) -> None:
    with pytest.raises(Refused, match="400"):
        await Prometheus(Access(url)).look(Source(url), lambda questions: questions.query("up{", NOW, print))
