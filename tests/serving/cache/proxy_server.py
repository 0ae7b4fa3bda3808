"""A proxy that refuses everything, and tells what it was asked for."""

from __future__ import annotations

import socket
import threading
from typing import Self


class RefusingProxy:
    """Answers each request 502. A context manager: leaving it closes the port."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked: list[str] = []
        """The first lines without the protocol: `CONNECT HOST:PORT`, `GET URL`."""
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            with connection:
                line = connection.makefile("rb").readline().decode()
                self.asked.append(line.rpartition(" ")[0])
                connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
