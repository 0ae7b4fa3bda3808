"""Milvus Lite as a child process on 127.0.0.1.

It is pure Python: in our process its searches would hold the interpreter's lock against the step loop. The child
serves until its standard input ends, which happens when its parent closes it or dies, however it dies.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from diffcache_core.os_errors import explain_os_error

START_SECONDS = 60.0  # measured: 2.5 s; the rest is for a machine that is busy loading the model
STOP_SECONDS = 10.0


class MilvusLiteError(Exception):
    """Milvus Lite does not start. The message holds its own last words."""


class MilvusLite:
    """The running child; started again by `uri()` if it has died."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder.with_suffix(".log")
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._uri = ""  # empty until the child has said where it listens

    def start(self) -> None:
        """Starts the child and does not wait: it gets ready while its parent imports torch. Raises MilvusLiteError."""
        with self._lock:
            self._start()

    def uri(self) -> str:
        """Where it listens. Blocks while it starts. Raises MilvusLiteError."""
        with self._lock:
            if self._child is None or self._child.poll() is not None:
                self._start()
            if not self._uri:
                self._uri = self._first_line()
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
            self._bury()

    def _bury(self) -> None:
        """Of a child that has ended: its exit status and its pipes."""
        if self._child is not None:
            with self._child:
                pass

    def _start(self) -> None:
        self._uri = ""
        self._bury()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            log = self._log.open("w")
        except OSError as error:
            raise MilvusLiteError(
                explain_os_error(error, self._folder, "move it away, or choose another folder with --data-dir")
            ) from None
        with log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", __name__, str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the parent, which then stops its child in order
            )

    def _first_line(self) -> str:
        child = self._child
        assert child is not None
        assert child.stdout is not None
        killer = threading.Timer(START_SECONDS, child.kill)
        killer.start()
        try:
            line = child.stdout.readline().strip()
        finally:
            killer.cancel()
        if not line:
            child.wait()
            words = self._log.read_text(errors="replace").strip().splitlines()
            reason = words[-1] if words else "no output"
            raise MilvusLiteError(f"Milvus Lite did not start in {self._folder}: {reason}")
        return line


def serve(folder: str) -> None:
    """The child: serve `folder` until standard input ends."""
    from milvus_lite.server_manager import server_manager_instance

    _wait_for_predecessor(Path(folder) / "LOCK")
    uri = server_manager_instance.start_and_get_uri(folder)
    if uri is None:  # damaged; nothing is lost with it, for the ledger holds every key and fills the index again
        shutil.rmtree(folder)
        uri = server_manager_instance.start_and_get_uri(folder)
    if uri is None:
        sys.exit(f"cannot open {folder}")
    print(uri, flush=True)
    sys.stdin.read()
    server_manager_instance.release_all()


def _wait_for_predecessor(lock: Path) -> None:
    """The child of a killed parent may still be closing the folder; Milvus Lite itself would not wait for it."""
    if lock.exists():
        with lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)


if __name__ == "__main__":
    serve(sys.argv[1])
