"""The connection of an index to its Milvus. It is made at the first use, and made again after each failure."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pymilvus import MilvusClient


@dataclass(eq=False)
class _Connection:
    client: MilvusClient
    collection: str
    users: int = 0


class MilvusConnections:
    """Holds one connection for several threads.

    A replaced connection is closed as soon as no thread uses it, because pymilvus keeps every client that is not
    closed.
    """

    def __init__(self, connect: Callable[[str], MilvusClient]) -> None:
        """`connect(collection)` returns a client that is ready for the collection."""
        self._connect = connect
        self._lock = threading.Lock()  # otherwise two threads could create the collection at the same time
        self._current: _Connection | None = None

    @contextlib.contextmanager
    def use(self, collection: str) -> Iterator[MilvusClient]:
        """Yields a client for one call. If the call fails, the next call gets a new client, because pymilvus does not
        recover after a restart of the server."""
        with self._lock:
            if self._current is None or self._current.collection != collection:
                self._drop()
                self._current = _Connection(self._connect(collection), collection)
            connection = self._current
            connection.users += 1
        try:
            yield connection.client
        except Exception:
            with self._lock:
                if self._current is connection:  # another thread may have replaced it meanwhile
                    self._current = None
            raise
        finally:
            with self._lock:
                connection.users -= 1
                self._close_if_unused(connection)

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        before, self._current = self._current, None
        if before is not None:
            self._close_if_unused(before)

    def _close_if_unused(self, connection: _Connection) -> None:
        if connection is not self._current and connection.users == 0:
            connection.client.close()
