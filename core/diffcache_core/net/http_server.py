"""A small HTTP server in the process's own event loop, for metrics.

Anybody who reaches the port may connect, so a connection must cost little: it has no thread, a deadline, and a limit on
the length of its request, and the number of connections is limited.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from diffcache_core.net.listening import ANY, listen_on_all

log = logging.getLogger("diffcache.http")

SECONDS = 10.0
"""Seconds that a connection may last. By default Prometheus ends a scrape after 10 s. A higher value lets silent
connections stay longer, a lower one ends scrapes that would have succeeded."""
MAX_CONNECTIONS = 64
"""Connections at once; a new one closes the oldest. A scrape takes milliseconds, so the oldest is a silent one. Each
costs a file descriptor; with fewer, a flood of silent connections disturbs several scrapers."""
MAX_HEAD_BYTES = 16 * 1024
"""Bytes of a request line and its headers together at most; those of Prometheus are below 1 KiB."""
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True)
class Request:
    path: str
    query: Mapping[str, list[str]]
    accept: str = ""  # the header of that name


@dataclass(frozen=True)
class Response:
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK


Handler = Callable[[Request], Awaitable[Response]]


@dataclass
class HttpServer:
    """Answers GET and HEAD, one request per connection."""

    handler: Handler
    seconds: float = SECONDS
    max_connections: int = MAX_CONNECTIONS
    _server: asyncio.Server | None = None
    _open: dict[_Connection, None] = field(default_factory=dict)  # oldest first
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, host: str, port: int) -> None:
        """Starts to listen. Raises OSError if it cannot listen there."""
        loop, connection = asyncio.get_running_loop(), partial(_Connection, self)
        if host == ANY:  # asyncio itself would only listen on IPv6
            self._server = await loop.create_server(connection, sock=listen_on_all(port))
        else:
            self._server = await loop.create_server(connection, host, port)

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        return len(self._open)

    def close(self) -> None:
        """Closes the server and all connections at once."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._open):
            connection.abort()
        for task in self._tasks:
            task.cancel()

    def opened(self, connection: _Connection) -> None:
        while len(self._open) >= self.max_connections:
            oldest = next(iter(self._open))
            self.closed(oldest)
            oldest.abort()
        self._open[connection] = None

    def closed(self, connection: _Connection) -> None:
        self._open.pop(connection, None)

    def answer(self, connection: _Connection, head: bytes) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(connection, head))
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, connection: _Connection, head: bytes) -> None:
        method, request = _parse(head)
        if request is None:
            response = _refusal(HTTPStatus.BAD_REQUEST)
        elif method not in ("GET", "HEAD"):
            response = _refusal(HTTPStatus.METHOD_NOT_ALLOWED)
        else:
            try:
                response = await self.handler(request)
            except Exception:  # any error: the caller does not see it, and the server continues
                log.exception("%s cannot be answered", request.path)
                response = _refusal(HTTPStatus.INTERNAL_SERVER_ERROR)
        connection.send(response, with_body=method != "HEAD")


class _Connection(asyncio.Protocol):
    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._head = bytearray()
        self._asked = False
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._deadline = asyncio.get_running_loop().call_later(self._server.seconds, self.abort)
        self._server.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._asked:
            return  # one request per connection
        self._head += data
        end = self._head.find(_END_OF_HEAD)
        if end < 0 and len(self._head) <= MAX_HEAD_BYTES:
            return
        self._asked = True
        if not 0 <= end <= MAX_HEAD_BYTES:
            self.send(_refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
        else:
            self._server.answer(self, bytes(self._head[:end]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._server.closed(self)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def send(self, response: Response, *, with_body: bool = True) -> None:
        """Sends the response and closes. A slow reader is disconnected at the deadline."""
        if self._transport is None or self._transport.is_closing():
            return
        head = (
            f"HTTP/1.1 {response.status.value} {response.status.phrase}\r\n"
            f"Content-Type: {response.content_type}\r\n"
            f"Content-Length: {len(response.body)}\r\n"
            "Connection: close\r\n\r\n"
        ).encode("latin-1")
        self._transport.write(head + response.body if with_body else head)
        self._transport.close()


def _parse(head: bytes) -> tuple[str, Request | None]:
    """Returns the method and the request; None instead of a request if it is malformed."""
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return "", None
    headers = dict(line.split(":", 1) for line in lines if ":" in line)
    accept = next((value.strip() for name, value in headers.items() if name.lower() == "accept"), "")
    try:
        target = urlsplit(words[1])
        return words[0], Request(target.path, parse_qs(target.query, max_num_fields=100), accept)
    except ValueError:
        return "", None


def _refusal(status: HTTPStatus) -> Response:
    return Response(f"{status.phrase}\n".encode(), status=status)
