"""The connection of an index to its Milvus: made when it is needed, and anew after each failure."""

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
    """One at a time, for several threads. One that is replaced is closed as soon as nobody uses it any more: pymilvus
    itself keeps every client that was not."""

    def __init__(self, connect: Callable[[str], MilvusClient]) -> None:
        """`connect(collection)` makes a client that is ready for the collection."""
        self._connect = connect
        self._lock = threading.Lock()  # two threads would make the collection at the same time
        self._current: _Connection | None = None

    @contextlib.contextmanager
    def use(self, collection: str) -> Iterator[MilvusClient]:
        """A client for one call. If the call fails, the next one gets another client: pymilvus does not recover from a
        server that was restarted."""
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
                if self._current is connection:  # not one that another thread has made meanwhile
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
