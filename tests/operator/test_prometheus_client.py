"""Whatever answers in Prometheus' place, the tuner gets series or a reason."""

from __future__ import annotations

import asyncio
import json
import ssl
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from diffcache_operator.clients.prometheus import (
    MAX_BYTES,
    REST_SECONDS,
    Access,
    Down,
    Malformed,
    Prometheus,
    PrometheusError,
    Refused,
    Slow,
)
from diffcache_operator.series import Series
from tests.operator.http_server import Answer, serving

MATRIX = {
    "status": "success",
    "data": {
        "resultType": "matrix",
        "result": [
            {"metric": {"__name__": "up", "pod": "a-0"}, "values": [[1435781430.781, "1"], [1435781445, "NaN"]]}
        ],
    },
}
"""As prometheus.io/docs/prometheus/latest/querying/api shows it."""


def says(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        text = body if isinstance(body, str | bytes) else json.dumps(body)
        return web.Response(
            body=text.encode() if isinstance(text, str) else text,
            status=status,
            headers={"Content-Type": "application/json"} | (headers or {}),
        )

    return answer


async def ask(url: str, prometheus: Prometheus | None = None) -> list[Series]:
    return await (prometheus or Prometheus(Access(), seconds=5)).query_range(url, "up", 1.0, 61.0, 30.0)


async def test_series_are_read_as_they_are_documented() -> None:
    asked: list[web.Request] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request)
        return await says(MATRIX)(request)

    async with serving(answer) as url:
        (found,) = await ask(url + "/prefix/")
    assert found.name == "up"
    assert found.labels["pod"] == "a-0"
    assert found.values[0] == (1435781430.781, 1.0)
    assert found.values[1][1] != found.values[1][1]
    assert asked[0].path == "/prefix/api/v1/query_range"
    assert dict(asked[0].query) == {"query": "up", "start": "1.000", "end": "61.000", "step": "30"}


async def test_an_instant_query_gives_one_value_a_series() -> None:
    vector = {
        "status": "success",
        "data": {"resultType": "vector", "result": [{"metric": {}, "value": [7, "3.5"]}]},
    }
    async with serving(says(vector)) as url:
        assert await Prometheus(Access()).query(url, "up", 7.0) == [Series({}, [(7.0, 3.5)])]


@pytest.mark.parametrize(
    "body",
    [
        "<html>",
        "",
        b"\xff\xfe",
        "null",
        "[" * 100_000,
        {"status": "error", "errorType": "bad_data", "error": "secret"},
        {"status": "success"},
        {"status": "success", "data": None},
        {"status": "success", "data": {"resultType": "vector", "result": []}},
        {"status": "success", "data": {"resultType": "matrix", "result": [1]}},
        {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": [[1]]}]}},
        {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": [[1, "x"]]}]}},
        {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": [], "values": []}]}},
        {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}}]}},
    ],
)
async def test_what_is_not_prometheus(body: Any) -> None:
    async with serving(says(body)) as url:
        with pytest.raises(Malformed) as caught:
            await ask(url)
    assert "secret" not in str(caught.value)


async def test_a_body_without_end_is_not_read_to_its_end() -> None:
    sent = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 4 * MAX_BYTES:
            await response.write(b" " * 2**20)
            sent += 2**20
        return response

    async with serving(answer) as url:
        with pytest.raises(Malformed, match="MiB"):
            await ask(url, Prometheus(Access(), seconds=60))
    assert sent < 3 * MAX_BYTES


async def test_what_would_fill_the_memory_is_not_parsed() -> None:
    """Nearly three million empty lists."""
    head = b'{"status":"success","data":{"resultType":"matrix","result":['
    body = head + b"[]," * (8 * 2**20 // 3) + b"[]]}}"
    async with serving(says(body)) as url:
        tracemalloc.start()
        try:
            with pytest.raises(Malformed):
                await ask(url)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 8 * len(body)


async def test_nothing_compressed_is_unpacked() -> None:
    async with serving(says(b"\x1f\x8b", headers={"Content-Encoding": "gzip"})) as url:
        with pytest.raises(PrometheusError):
            await ask(url)


@pytest.mark.parametrize("status", [302, 401, 403, 404, 422, 500, 503])
async def test_refusals_tell_the_status_and_nothing_else(status: int) -> None:
    """A redirect is one, too: it could lead to anywhere inside the cluster."""
    async with serving(says("secret", status, {"Location": "/api/v1/query_range"})) as url:
        with pytest.raises(Refused, match=str(status)) as caught:
            await ask(url)
    assert "secret" not in str(caught.value)


async def test_one_that_is_slow_or_away_is_left_alone_for_a_while() -> None:
    now = 0.0
    asked = 0

    async def answer(_: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()
        raise AssertionError

    prometheus = Prometheus(Access(), clock=lambda: now, seconds=0.2)
    async with serving(answer) as url:
        for _ in range(3):
            with pytest.raises(Slow):
                await ask(url, prometheus)
        assert asked == 1
        now = REST_SECONDS + 1
        with pytest.raises(Slow):
            await ask(url, prometheus)
        assert asked == 2
    now += REST_SECONDS + 1
    with pytest.raises(Down, match="cannot be reached"):
        await ask(url, prometheus)
    async with serving(says(MATRIX)) as other:
        assert len(await ask(other, prometheus)) == 1


@pytest.mark.parametrize("url", ["http://no-such-host.invalid:9090", "http://[::1", "http://127.0.0.1:1"])
async def test_no_such_address(url: str) -> None:
    with pytest.raises(Down):
        await ask(url)


async def test_the_token_goes_to_the_operators_own_prometheus_only(tmp_path: Path) -> None:
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        return await says(MATRIX)(request)

    token = tmp_path / "token"
    token.write_text("one\n")
    async with serving(answer) as own, serving(answer) as other:
        prometheus = Prometheus(Access(own, token))
        for url in (own, other, own + "/"):
            await ask(url, prometheus)
        token.write_text("two")
        await ask(own, prometheus)
        token.unlink()
        with pytest.raises(Refused, match="tokenSecret"):
            await ask(own, prometheus)
        token.write_text("a\r\nX: y")
        with pytest.raises(Refused, match="tokenSecret"):
            await ask(own, prometheus)
    assert seen == ["Bearer one", None, None, "Bearer two"]


async def test_its_certificate_is_checked(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    async with serving(says(MATRIX), tls) as url:
        assert len(await ask(url, Prometheus(Access(url, ca_file=tmp_path / "ca.crt")))) == 1
        with pytest.raises(Down):
            await ask(url)
        with pytest.raises(Refused, match="caSecret"):
            await ask(url, Prometheus(Access(url, ca_file=tmp_path / "none")))
