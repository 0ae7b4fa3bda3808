"""Whatever answers in Prometheus' place, the tuner gets series or a reason."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from diffcache_operator.clients.prometheus import (
    REST_SECONDS,
    Access,
    Down,
    Malformed,
    Prometheus,
    PrometheusError,
    Refused,
    Slow,
    Source,
)
from diffcache_operator.series import Series
from diffcache_operator.tuning.source import NoSource, source_of
from tests.operator.http_server import Answer, serving
from tests.operator.resources import cache

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


async def ask(url: str, prometheus: Prometheus | None = None, source: Source | None = None) -> list[Series]:
    """As the operator's own, unless another source is given."""
    prometheus = prometheus or Prometheus(Access(url), seconds=5)
    found: list[Series] = []
    await prometheus.look(source or Source(url), lambda asking: asking.query_range("up", 1.0, 61.0, 30.0, found.append))
    return found


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
    found: list[Series] = []
    async with serving(says(vector)) as url:
        await Prometheus(Access(url)).look(Source(url), lambda asking: asking.query("up", 7.0, found.append))
    assert found == [Series({}, [(7.0, 3.5)])]


@pytest.mark.parametrize(
    "text",
    [
        """ { "data" : { "result" : [ { "values" : [ [ 1 , "2" ] , [ 3e1 , "-Inf" ] ] , "extra": null ,
              "metric" : { "a\\"b" : "\\u00e9" } } ] , "resultType" : "matrix" , "stats": {"a": [{"]": "}"}]} } ,
              "status" : "success" , "infos": ["x\\"]"] } """,
    ],
)
async def test_other_servers_write_it_otherwise(text: str) -> None:
    async with serving(says(text)) as url:
        (found,) = await ask(url)
    assert found == Series({'a"b': "\u00e9"}, [(1.0, 2.0), (30.0, -math.inf)])


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
        {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": [[1, "2"]] * 9}]}},
        {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {"a": "b" * 600}, "values": []}]}},
        json.dumps(MATRIX) + "x",
        json.dumps(MATRIX)[:-1],
        json.dumps(MATRIX).replace('"NaN"', '"1e"'),
        json.dumps(MATRIX).replace("1435781430.781", "1" * 50),
        json.dumps(MATRIX).replace('"up"', '"\\x"'),
        json.dumps(MATRIX).encode().replace(b'"up"', b'"\xff"'),
        json.dumps(MATRIX | {"warnings": [[[[[[[[[]]]]]]]]]}),
    ],
)
async def test_what_is_not_prometheus(body: Any) -> None:
    async with serving(says(body)) as url:
        with pytest.raises(Malformed) as caught:
            await ask(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", [302, 401, 403, 404, 422, 500, 503])
async def test_refusals_tell_the_status_and_nothing_else(status: int) -> None:
    """A redirect is one, too: it could lead to anywhere inside the cluster."""
    async with serving(says("secret", status, {"Location": "/api/v1/query_range"})) as url:
        with pytest.raises(Refused, match=str(status)) as caught:
            await ask(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("body", ["nonsense", None])
async def test_one_that_gives_no_figures_is_left_alone_for_a_while(body: str | None) -> None:
    """Whether it says nothing or nonsense, and whatever path on it is asked."""
    now = 0.0
    asked = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        if body is None:
            await asyncio.Event().wait()
        return await says(body)(request)

    error = Slow if body is None else Malformed
    async with serving(answer) as url:
        prometheus = Prometheus(Access(url), clock=lambda: now, seconds=0.2)
        for path in ("", "/a", "/b"):
            with pytest.raises(error):
                await ask(url, prometheus, Source(url + path))
        assert asked == 1
        with pytest.raises(PrometheusError):
            await ask(url, prometheus, Source(url, "demo"))
        assert asked == 2  # another namespace may have another path, or another header
        now = REST_SECONDS + 1
        with pytest.raises(error):
            await ask(url, prometheus)
        assert asked == 3
    now += REST_SECONDS + 1
    with pytest.raises(Down, match="cannot be reached"):
        await ask(url, prometheus)
    async with serving(says(MATRIX)) as other:
        assert len(await ask(other, prometheus)) == 1


@pytest.mark.parametrize("url", ["http://no-such-host.invalid:9090", "http://[::1", "http://127.0.0.1:1"])
async def test_no_such_address(url: str) -> None:
    with pytest.raises(Down):
        await ask(url)


async def test_a_resource_does_not_learn_what_is_wrong_with_what_it_names() -> None:
    """Or the operator would try ports, names and pages for whoever may write a resource. Nor does the time tell."""
    told: list[tuple[str, str]] = []
    times: list[float] = []
    loop = asyncio.get_running_loop()

    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async def probe(url: str) -> None:
        began = loop.time()
        with pytest.raises(PrometheusError) as caught:
            await ask(url, Prometheus(Access(), seconds=0.3), Source(url, "demo"))
        times.append(loop.time() - began)
        told.append((caught.value.reason, str(caught.value).replace(url, "URL")))

    for answer in (*(says("secret", status) for status in (200, 204, 302, 401, 404, 500)), silent):
        async with serving(answer) as url:
            await probe(url)
    for url in ("http://127.0.0.1:1", "http://no-such-host.invalid:9090"):
        await probe(url)
    assert len(set(told)) == 1
    assert told[0][0] == "PrometheusFailed"
    assert min(times) >= 0.3


async def test_what_is_secret_goes_to_the_operators_own_prometheus_only(tmp_path: Path) -> None:
    seen: list[tuple[str | None, ...]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(tuple(request.headers.get(name) for name in ("Authorization", "X-Scope-OrgID", "X-Key")))
        return await says(MATRIX)(request)

    token, folder = tmp_path / "token", tmp_path / "headers"
    folder.mkdir()
    token.write_text("one\n")
    (folder / "X-Key").write_text("k")
    (folder / "..data").mkdir()  # as the kubelet lays them
    async with serving(answer) as own, serving(answer) as other:
        access = Access(own, token, headers=(("X-Scope-OrgID", "ours"),), headers_folder=folder)
        prometheus = Prometheus(access, lambda: float(len(seen)) * 1000)
        await ask(own, prometheus)
        await ask(other, prometheus, Source(other, "demo", (("X-Scope-OrgID", "theirs"),)))
        await ask(own, prometheus, Source(own, "demo", (("X-Scope-OrgID", "theirs"),)))
        token.write_text("two")
        await ask(own, prometheus)
        assert seen == [
            ("Bearer one", "ours", "k"),
            (None, "theirs", None),
            (None, "theirs", None),
            ("Bearer two", "ours", "k"),
        ]
    for file, value, setting in (
        (token, "a\r\nX: y", "tokenSecret"),
        (token, None, "tokenSecret"),
        (folder / "X-Key", "\x00", "headersSecret"),
    ):
        token.write_text("one")
        file.unlink() if value is None else file.write_text(value)
        with pytest.raises(Refused, match=setting):
            await ask(own, Prometheus(access))


def test_which_prometheus_is_asked() -> None:
    own, headers = "http://prometheus:9090", [{"name": "X-Scope-OrgID", "value": "a"}]

    def source(access: Access, **named: Any) -> Source:
        return source_of(cache(prometheus=named), access)

    assert source(Access(own)) == source(Access(own), url=own) == Source(own)
    assert source(Access(own), url=own, headers=headers) == Source(own, "demo", (("X-Scope-OrgID", "a"),))
    assert source(Access(own), url="http://b") == Source("http://b", "demo")
    only, some = Access(own, own_only=True), Access(own, allowed=("http://b/", "http://c/x"))
    for access, url in ((only, "http://b"), (some, "http://c"), (some, "http://b.evil"), (Access(own_only=True), own)):
        with pytest.raises(NoSource) as caught:
            source(access, url=url)
        assert caught.value.reason == "PrometheusNotAllowed"
    with pytest.raises(NoSource):
        source(only, url=own, headers=headers)
    assert source(only) == source(some) == source(only, url=own) == Source(own)
    assert source(some, url="http://b") == Source("http://b", "demo")
    assert source(some, url="http://c/x/") == Source("http://c/x/", "demo")
    with pytest.raises(NoSource, match="nobody has said"):
        source(Access())


async def test_its_certificate_is_checked(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    async with serving(says(MATRIX), tls) as url:
        assert len(await ask(url, Prometheus(Access(url, ca_file=tmp_path / "ca.crt")))) == 1
        with pytest.raises(Down):
            await ask(url, Prometheus(Access(url)))
        with pytest.raises(Refused, match="caSecret"):
            await ask(url, Prometheus(Access(url, ca_file=tmp_path / "none")))
