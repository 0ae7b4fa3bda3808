"""The Prometheus client of the tuner: the questions of one look at a cache.

A resource may name any Prometheus in its spec, so an answer may be hostile. Each answer and each look has a size limit,
and no error repeats text of an answer: a condition must not show what a foreign server says to the operator. A
condition does not show either why a resource's own URL gives no figures; otherwise any user who may write a resource
could use the operator to scan the cluster's network. The token, the CA and the headers of the operator's chart are only
sent to the operator's own URL.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver

from diffcache_core.foreign import quoted
from diffcache_operator.clients.answer import NotPrometheus, read_series
from diffcache_operator.clients.names import NameResolver
from diffcache_operator.series import Series

log = logging.getLogger("diffcache.prometheus")

QUERY_SECONDS = 10.0
"""Seconds of one query, including its answer. The tuner looks once a minute, so a longer wait gains nothing."""
LOOK_SECONDS = 30.0
"""Seconds for all questions of one look. With more, a slow server delays other caches of its namespace for longer."""
MAX_BYTES = 2**20
"""Bytes of one answer. A counter's series of one pod have .6 MB at most, with 9 levels, 20 bins and 145 points. A
question about several pods is split if its answer is too large."""
MAX_LOOK_BYTES = 64 * 2**20
"""Bytes of all answers of one look. 64 pods with thirty bins in use need about 50 MB; each MiB takes some 50 ms to
read."""
MAX_LOOK_SERIES = 20_000
"""Series of all answers of one look. Each takes 1.7 KB of memory until the look is over, so 34 MB at most."""
REST_SECONDS = 60.0
"""Seconds for which a Prometheus that gave no figures is not asked: the questions would only take time from others."""


class PrometheusError(Exception):
    """Prometheus gave no usable figures. `reason`: the reason of the condition. The message says what to do."""

    reason = "PrometheusFailed"


class Down(PrometheusError):
    reason = "PrometheusDown"


class Slow(PrometheusError):
    reason = "PrometheusSlow"


class Refused(PrometheusError):
    reason = "PrometheusRefused"


class Malformed(PrometheusError):
    reason = "PrometheusMalformed"


class TooLarge(Malformed):
    """One answer is too large; nothing of it was used."""


@dataclass(frozen=True)
class Access:
    """The operator's own Prometheus, and which others resources may name. Only its own one gets token, CA and
    headers."""

    url: str = ""
    token_file: Path | None = None  # read at each look, because tokens are replaced now and then
    ca_file: Path | None = None
    headers: tuple[tuple[str, str], ...] = ()
    headers_folder: Path | None = None  # has one file for each secret header; read at each look
    own_only: bool = False  # resources may not name another one
    allowed: tuple[str, ...] = ()  # URLs that resources may name; empty: any


@dataclass(frozen=True)
class Source:
    """A Prometheus to ask. `namespace`: of the resource that names the URL; empty for the operator's own Prometheus."""

    url: str
    namespace: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def is_own(self) -> bool:
        return not self.namespace

    @property
    def host(self) -> tuple[str, str]:
        """The key of the rest after a failure: namespace, and host with port. Another namespace may have a right path
        or header, so each rests for itself."""
        return self.namespace, self.url.partition("://")[2].partition("/")[0].lower()


Answer = TypeVar("Answer")


class Prometheus:
    """Asks Prometheus. `seconds`: limit of one query; `look_seconds`: limit of all queries of a look."""

    def __init__(
        self,
        access: Access,
        clock: Callable[[], float] = time.monotonic,
        seconds: float = QUERY_SECONDS,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self.access, self._clock, self._seconds, self._look_seconds = access, clock, seconds, look_seconds
        self._resting: dict[tuple[str, str], tuple[float, PrometheusError]] = {}
        self._reader = ThreadPoolExecutor(1, "prometheus")  # one answer at a time, beside the event loop
        self._names = NameResolver()

    async def look(self, source: Source, ask: Callable[[Questions], Awaitable[Answer]]) -> Answer:
        """Runs `ask` with the questions of one look, and returns its result. Raises PrometheusError."""
        now = self._clock()
        self._resting = {host: rest for host, rest in self._resting.items() if now < rest[0]}
        if source.host in self._resting:
            error = self._resting[source.host][1]
            raise type(error)(str(error))
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._look_seconds), self._session(source) as session:
                return await ask(Questions(session, source, self._seconds, self._reader))
        except TimeoutError:
            text = f"takes more than {self._look_seconds:g} s for a cache's figures: is it overloaded?"
            trouble: PrometheusError = Slow(f"Prometheus at {source.url} {text}")
        except PrometheusError as caught:
            trouble = caught
        if not source.is_own:
            log.info("%s: %s", source.namespace, trouble)
            trouble = _vague(source.url)
            # The time until this error must not show either whether a port is closed or a name unknown.
            await asyncio.sleep(began + self._seconds - asyncio.get_running_loop().time())
        self._resting[source.host] = (self._clock() + REST_SECONDS, trouble)
        raise trouble from None

    async def close(self) -> None:
        self._reader.shutdown(wait=False, cancel_futures=True)
        await self._names.close()

    @asynccontextmanager
    async def _session(self, source: Source) -> AsyncIterator[aiohttp.ClientSession]:
        headers = {"Accept-Encoding": "identity", **dict(source.headers)}
        tls: ssl.SSLContext | bool = True
        if source.is_own:
            headers |= self._own_headers()
            tls = self._own_tls()
        resolver: AbstractResolver | None = None if source.is_own else self._names
        connector = aiohttp.TCPConnector(ssl=tls, resolver=resolver, limit=1)
        async with aiohttp.ClientSession(
            connector=connector,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=self._seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # a few compressed bytes could expand to any size
            trust_env=False,
        ) as session:
            yield session

    def _own_headers(self) -> dict[str, str]:
        access, headers = self.access, dict(self.access.headers)
        if access.token_file is not None:
            token = _secret(access.token_file, "the token of Prometheus", "prometheus.tokenSecret")
            headers["Authorization"] = f"Bearer {token}"
        if access.headers_folder is not None:
            try:
                files = sorted(file for file in access.headers_folder.iterdir() if not file.name.startswith("."))
            except OSError as error:
                raise Refused(
                    f"the headers of Prometheus cannot be read ({error}): mend prometheus.headersSecret"
                ) from None
            for file in files:
                headers[file.name] = _secret(file, f"the header {file.name}", "prometheus.headersSecret")
        return headers

    def _own_tls(self) -> ssl.SSLContext | bool:
        if self.access.ca_file is None:
            return True
        try:
            return ssl.create_default_context(cafile=str(self.access.ca_file))
        except (OSError, ssl.SSLError) as error:
            raise Refused(f"the CA of Prometheus cannot be read ({error}): mend prometheus.caSecret") from None


class Questions:
    """The questions of one look. They run one after the other: Prometheus serves others, too, and answers take
    memory."""

    def __init__(
        self, session: aiohttp.ClientSession, source: Source, seconds: float, reader: ThreadPoolExecutor
    ) -> None:
        self._session, self._source, self._seconds, self._reader = session, source, seconds, reader
        self._bytes = self._series = 0

    async def query_range(
        self, query: str, start: float, end: float, step: float, take: Callable[[Series], None]
    ) -> None:
        """Calls `take`, in a thread, with each series: its values at start, start + step ... end, all in seconds.

        Raises PrometheusError. If it is TooLarge, `take` was not called.
        """
        parameters = {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        await self._ask("query_range", parameters, "matrix", round((end - start) / step) + 2, take)

    async def query(self, query: str, at: float, take: Callable[[Series], None]) -> None:
        """Likewise, with one value for each series, at the time `at`."""
        await self._ask("query", {"query": query, "time": f"{at:.3f}"}, "vector", 1, take)

    async def _ask(
        self, what: str, parameters: Mapping[str, str], kind: str, most: int, take: Callable[[Series], None]
    ) -> None:
        body = await self._fetch(f"{self._source.url.rstrip('/')}/api/v1/{what}", parameters)
        self._bytes += len(body)
        if self._bytes > MAX_LOOK_BYTES:
            raise Malformed(f"Prometheus at {self._source.url} says too much: more than {MAX_LOOK_BYTES >> 20} MiB")
        await asyncio.get_running_loop().run_in_executor(self._reader, self._read, body, kind, most, take)

    def _read(self, body: bytes, kind: str, most: int, take: Callable[[Series], None]) -> None:
        try:
            for one in read_series(body, kind, most):
                self._series += 1
                if self._series > MAX_LOOK_SERIES:
                    raise Malformed(f"Prometheus at {self._source.url} says too much: over {MAX_LOOK_SERIES} series")
                take(one)
        except NotPrometheus:
            raise Malformed(
                f"what answers at {self._source.url} is no Prometheus: check the URL, which ends before /api/v1"
            ) from None

    async def _fetch(self, address: str, parameters: Mapping[str, str]) -> bytes:
        url = self._source.url
        try:
            async with self._session.get(address, params=parameters, allow_redirects=False) as response:
                if response.status != 200:
                    advice = "check prometheus.url, tokenSecret and headers of the operator's chart"
                    raise Refused(f"Prometheus at {url} answers with status {response.status}: {advice}")
                return await _limited(response, url)
        except TimeoutError:
            raise Slow(f"Prometheus at {url} does not answer within {self._seconds:g} s: is it overloaded?") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Down(
                f"Prometheus at {url} cannot be reached ({type(error).__name__}): is it up, and is the URL right?"
            ) from None


def _vague(url: str) -> PrometheusError:
    """Returns an error that is the same for every problem of a resource's URL."""
    return PrometheusError(
        f"Prometheus at {quoted(url)} gives no figures: is it up and not overloaded, does spec.prometheus.url end "
        "before /api/v1, and does it answer without a token? The operator's log says more"
    )


def _secret(file: Path, what: str, value: str) -> str:
    """Reads a secret. Raises Refused, with a message that shows nothing of the file's content."""
    try:
        text = file.read_text().strip()
    except (OSError, ValueError) as error:
        trouble = getattr(error, "strerror", None) or type(error).__name__
        raise Refused(f"{what} cannot be read ({trouble}): mend {value}") from None
    if not text.isascii() or not text.isprintable():
        raise Refused(f"{what} is none: mend the Secret of {value}")
    return text


async def _limited(response: aiohttp.ClientResponse, url: str) -> bytes:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise Malformed(f"what answers at {url} compresses unasked: is it a Prometheus?")
    body = bytearray()
    async for chunk in response.content.iter_chunked(2**16):
        body += chunk
        if len(body) > MAX_BYTES:
            raise TooLarge(f"Prometheus at {url} says too much of one pod: more than {MAX_BYTES >> 20} MiB")
    return bytes(body)
