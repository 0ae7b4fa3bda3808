"""Milvus Lite as a child process on 127.0.0.1.

It is pure Python: in our process its searches would hold the interpreter's lock against the step loop. The child
serves until its standard input ends, which happens when its parent closes it or dies, however it dies.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

START_SECONDS = 60.0  # measured: 2.5 s; the rest is for a machine that is busy loading the model
STOP_SECONDS = 10.0


class MilvusLiteError(Exception):
    """Milvus Lite does not start. The message holds its own last words."""


class MilvusLite:
    """The running child; started again by `uri()` if it has died."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._uri = ""

    def uri(self) -> str:
        """Where it listens. Blocks while it starts. Raises MilvusLiteError."""
        with self._lock:
            if self._child is None or self._child.poll() is not None:
                self._start()
            return self._uri

    def stop(self) -> None:
        """Lets the child write down what it holds and end."""
        with self._lock:
            if self._child is None:
                return
            assert self._child.stdin is not None
            self._child.stdin.close()
            try:
                self._child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    def _start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        log = (self._folder.parent / f"{self._folder.name}.log").open("w")
        with log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", __name__, str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the parent, which then stops its child in order
            )
        child, line = self._child, ""
        killer = threading.Timer(START_SECONDS, child.kill)
        killer.start()
        try:
            assert child.stdout is not None
            line = child.stdout.readline().strip()
        finally:
            killer.cancel()
        if not line:
            child.wait()
            words = Path(log.name).read_text(errors="replace").strip().splitlines()
            raise MilvusLiteError(f"Milvus Lite did not start in {self._folder}: {words[-1] if words else 'no output'}")
        self._uri = line


def serve(folder: str) -> None:
    """The child: serve `folder` until standard input ends."""
    from milvus_lite.server_manager import server_manager_instance

    uri = server_manager_instance.start_and_get_uri(folder)
    if uri is None:
        sys.exit(f"cannot open {folder}")
    print(uri, flush=True)
    sys.stdin.read()
    server_manager_instance.release_all()


if __name__ == "__main__":
    serve(sys.argv[1])
