"""Prometheus, as far as the tuner needs it: raw counters over a range.

Which Prometheus a resource may name in its spec, so an answer may be anything, and nothing of it is repeated in an
error: a condition must not show what a foreign server says to the operator. The token and the CA are the operator's,
for the operator's own URL.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from diffcache_operator.series import Series

QUERY_SECONDS = 10.0
"""Of one query, its answer included. The tuner looks once a minute, so nothing is gained by waiting longer."""

MAX_BYTES = 16 * 2**20
"""Of one answer. 145 points of a series for each of 9 levels and 20 bins are .6 MB a pod, at their very most. Parsed,
an answer takes up to ten times as much memory, of which the operator has 512 MiB."""
MAX_DENSITY = 0.25
"""Brackets and commas per character; a sample such as [1700000000,"1"] has .18, and the shorter the values, the more
memory they take for their length."""

REST_SECONDS = 60.0
"""A Prometheus that did not answer is left alone for so long, by all resources: each try would hold up a worker."""


class PrometheusError(Exception):
    """`reason`: of a condition. The message says what to do."""

    reason = ""


class Down(PrometheusError):
    reason = "PrometheusDown"


class Slow(PrometheusError):
    reason = "PrometheusSlow"


class Refused(PrometheusError):
    reason = "PrometheusRefused"


class Malformed(PrometheusError):
    reason = "PrometheusMalformed"


@dataclass(frozen=True)
class Access:
    """The operator's own Prometheus; what else a resource names gets neither token nor CA."""

    url: str = ""
    token_file: Path | None = None  # read at each query: such tokens are replaced now and then
    ca_file: Path | None = None


class Prometheus:
    def __init__(
        self, access: Access, clock: Callable[[], float] = time.monotonic, seconds: float = QUERY_SECONDS
    ) -> None:
        self._access, self._clock, self._seconds = access, clock, seconds
        self._resting: dict[str, tuple[float, PrometheusError]] = {}
        self._parsing = asyncio.Lock()  # parsed, an answer takes several times its length: one at a time

    @property
    def own_url(self) -> str:
        return self._access.url

    async def query_range(self, url: str, query: str, start: float, end: float, step: float) -> list[Series]:
        """Values at start, start + step ... end, all in seconds. Raises PrometheusError."""
        parameters = {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        return await self._ask(url, "query_range", parameters, "matrix", "values")

    async def query(self, url: str, query: str, at: float) -> list[Series]:
        """One value a series. Raises PrometheusError."""
        return await self._ask(url, "query", {"query": query, "time": f"{at:.3f}"}, "vector", "value")

    def give_up(self, url: str, seconds: float) -> PrometheusError:
        """It answers, but all of it would take too long: it rests as one that does not answer at all."""
        trouble = Slow(f"Prometheus at {url} takes more than {seconds:g} s for a cache's figures: is it overloaded?")
        self._resting[url] = (self._clock() + REST_SECONDS, trouble)
        return trouble

    async def _ask(self, url: str, what: str, parameters: Mapping[str, str], kind: str, key: str) -> list[Series]:
        until, error = self._resting.get(url, (float("-inf"), None))
        if error is not None and self._clock() < until:
            raise type(error)(str(error))
        try:
            body = await self._fetch(url, f"{url.rstrip('/')}/api/v1/{what}", parameters)
        except (Down, Slow) as trouble:
            self._resting[url] = (self._clock() + REST_SECONDS, trouble)
            raise
        self._resting.pop(url, None)
        async with self._parsing:
            return await asyncio.to_thread(_parse, body, url, kind, key)

    async def _fetch(self, url: str, address: str, parameters: Mapping[str, str]) -> bytes:
        own = url == self._access.url
        headers = {"Accept-Encoding": "identity"} | (self._authorization() if own else {})
        timeout = aiohttp.ClientTimeout(total=self._seconds)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, connector=self._connector() if own else None) as session,
                session.get(address, params=parameters, headers=headers, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise Refused(f"Prometheus at {url} answers with status {response.status}: {_advice(own)}")
                return await _limited(response, url)
        except TimeoutError:
            raise Slow(f"Prometheus at {url} does not answer within {self._seconds:g} s: is it overloaded?") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Down(
                f"Prometheus at {url} cannot be reached ({type(error).__name__}): is it up, and is the URL right?"
            ) from None

    def _authorization(self) -> dict[str, str]:
        if self._access.token_file is None:
            return {}
        try:
            token = self._access.token_file.read_text().strip()
        except (OSError, ValueError) as error:
            raise Refused(f"the token of Prometheus cannot be read ({error}): mend prometheus.tokenSecret") from None
        if not token.isascii() or not token.isprintable():
            raise Refused("the token of Prometheus is no token: mend the Secret of prometheus.tokenSecret")
        return {"Authorization": f"Bearer {token}"}

    def _connector(self) -> aiohttp.TCPConnector | None:
        if self._access.ca_file is None:
            return None
        try:
            return aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(self._access.ca_file)))
        except (OSError, ssl.SSLError) as error:
            raise Refused(f"the CA of Prometheus cannot be read ({error}): mend prometheus.caSecret") from None


def _advice(own: bool) -> str:
    if own:
        return "check prometheus.url and prometheus.tokenSecret of the operator's chart"
    return "check spec.prometheus.url, which is asked without a token"


async def _limited(response: aiohttp.ClientResponse, url: str) -> bytes:
    if "Content-Encoding" in response.headers:
        raise Malformed(f"what answers at {url} compresses unasked: is it a Prometheus?")
    body = bytearray()
    async for chunk in response.content.iter_chunked(2**16):
        body += chunk
        if len(body) > MAX_BYTES:
            raise Malformed(f"Prometheus at {url} answers with more than {MAX_BYTES >> 20} MiB: is it one?")
    return bytes(body)


def _parse(body: bytes, url: str, kind: str, key: str) -> list[Series]:
    return _series(_data(body, url), kind, key)


def _data(body: bytes, url: str) -> Any:
    # A resource names whatever URL it likes: what is made of empty lists would fill the operator's memory.
    if sum(map(body.count, (b"[", b"{", b","))) > len(body) * MAX_DENSITY:
        raise Malformed(f"what answers at {url} is no Prometheus: check the URL, which ends before /api/v1")
    try:
        answer = json.loads(body)
        if answer["status"] == "success":
            return answer["data"]
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise Malformed(f"what answers at {url} is no Prometheus: check the URL, which ends before /api/v1")


def _series(data: Any, kind: str, key: str) -> list[Series]:
    """Raises Malformed for anything but the documented form (prometheus.io/docs/prometheus/latest/querying/api)."""
    try:
        if data["resultType"] != kind:
            raise ValueError(kind)
        return [
            Series(
                {str(name): str(value) for name, value in one["metric"].items()},
                [(float(at), float(value)) for at, value in (one[key] if key == "values" else [one[key]])],
            )
            for one in data["result"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise Malformed("Prometheus answers in a form that is not its own: check the URL, and its version") from None
