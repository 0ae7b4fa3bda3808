"""A resource may name whatever answers as its Prometheus: it does not cost the operator more than a few MiB."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from diffcache_core.names import QUALITY_PAIRS
from tests.operator.http_server import Answer, serving

HEAD = b'{"status":"success","data":{"resultType":"matrix","result":['
TAIL = b"]}}"
GROWTH = 160 * 2**20
"""Bytes, of four looks at once, of which each may hold 34 MB of series that are as a pod's own. Without limits it was
750 MiB for one answer."""
SMALL = 48 * 2**20
"""Of what has nothing of a pod's own: an answer a look, and what the network keeps."""


def whole(body: bytes, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, headers=headers)

    return answer


def streamed(chunks: Iterator[bytes], pause: float = 0.0) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            for chunk in chunks:
                await response.write(chunk)
                await asyncio.sleep(pause)
        except ConnectionError:
            pass
        return response

    return answer


async def redirected(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound(f"{request.path_qs}&again=1")


def series(number: int, samples: int) -> bytes:
    """Of a pod that is there, and of a comparison that there can be."""
    labels = {
        "__name__": QUALITY_PAIRS,
        "pod": f"emoji-{number % 8}",
        "skip": str(1 + number // 8 % 99),
        "similarity": f"0.{number // 800 % 100:02}{number}",
    }
    values = [[1_800_000_000 - 7 * 86400 + 8192 * i, "1"] for i in range(samples)]
    return json.dumps({"metric": labels, "values": values}, separators=(",", ":")).encode()


def plausible() -> Answer:
    """Different series in each answer, as many and as short as there may be: what costs the tuner most."""
    numbers = count()

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/query"):
            return web.json_response({"status": "success", "data": {"resultType": "vector", "result": []}})
        rows = b",".join(series(next(numbers), 1) for _ in range(5000))
        return web.Response(body=HEAD + rows + TAIL)

    return answer


NESTED = HEAD + b"[" * 2**20
HOSTILE = {
    "nested, 16 MiB": (whole(b"[" * 2**24), SMALL),
    "nested": (whole(NESTED[: 2**20]), SMALL),
    "objects": (whole(HEAD + b'{"a":' * 170_000), SMALL),
    "empty lists": (whole(HEAD + b"[]," * 300_000 + b"[]" + TAIL), SMALL),
    "empty objects": (whole(HEAD + b"{}," * 300_000 + b"{}" + TAIL), SMALL),
    "labels": (whole(HEAD + b'{"metric":{' + b",".join(b'"%d":""' % i for i in range(90_000)) + b"}}" + TAIL), SMALL),
    "series": (whole(HEAD + b",".join([b'{"metric":{},"values":[]}'] * 40_000) + TAIL), SMALL),
    "samples": (whole(HEAD + b'{"metric":{},"values":[' + b",".join([b'[1,"1"]'] * 120_000) + b"]}" + TAIL), SMALL),
    "escapes": (whole(HEAD + b'{"' + b'\\"' * 500_000 + b'":1}' + TAIL), SMALL),
    "wide text": (whole(HEAD + b'{"' + "\U0001f600".encode() * 250_000 + b'":1}' + TAIL), SMALL),
    "warnings": (whole(b'{"warnings":' + b"[]" * 500_000), SMALL),
    "endless": (streamed(b" " * 2**16 for _ in count()), SMALL),
    "a drip": (streamed((b" " for _ in count()), pause=0.05), SMALL),
    "a bomb": (whole(gzip.compress(bytes(2**28)), **{"Content-Encoding": "gzip"}), SMALL),
    "a header without end": (whole(b"", **{f"X-{i}": "a" * 4000 for i in range(120)}), SMALL),
    "redirects": (redirected, SMALL),
    "as a pod's own": (plausible(), GROWTH),
}


async def answer(request: web.Request) -> web.StreamResponse:
    return await HOSTILE[request.path.split("/")[1]][0](request)


@pytest.fixture(scope="module")
async def told() -> dict[str, Any]:
    """How the looks at each ended, and how much the process that looked had grown by then."""
    program = str(Path(__file__).with_name("look_at_hostile.py"))
    async with serving(answer) as url:
        urls = [f"{url}/{quote(kind)}" for kind in HOSTILE]
        process = await asyncio.create_subprocess_exec(
            sys.executable, program, *urls, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return dict(zip(HOSTILE, json.loads(out).values(), strict=True))


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_prometheus_costs_little(kind: str, told: dict[str, Any]) -> None:
    assert "read" not in told[kind]["ended"]
    assert told[kind]["grown"] < HOSTILE[kind][1]
