"""Milvus Lite as a child process on 127.0.0.1.

Milvus Lite is pure Python: in our process its searches would hold the interpreter lock (GIL) and delay the step loop.
The child serves until its standard input ends. That happens when its parent closes it or dies, even by kill -9.
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
    """Milvus Lite does not start. The message holds the last line of its log."""


class MilvusLite:
    """The child process. `uri()` starts it again if it has died."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder.with_suffix(".log")
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._uri = ""  # empty until the child has said where it listens

    def start(self) -> None:
        """Starts the child without waiting: the child gets ready while its parent imports torch.

        Raises MilvusLiteError if the child cannot be started.
        """
        with self._lock:
            self._start()

    def uri(self) -> str:
        """Returns the URI of Milvus Lite. Blocks while the child starts. Raises MilvusLiteError if that fails."""
        with self._lock:
            if self._child is None or self._child.poll() is not None:
                self._start()
            if not self._uri:
                self._uri = self._first_line()
            return self._uri

    def stop(self) -> None:
        """Ends the child after it has written its data. Kills it after STOP_SECONDS."""
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
        """Collects the exit status of a child that has ended, and closes its pipes."""
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
                start_new_session=True,  # Ctrl-C reaches only the parent, which then stops the child in order
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
    """Runs in the child: serves `folder` until standard input ends."""
    from milvus_lite.server_manager import server_manager_instance

    _wait_for_predecessor(Path(folder) / "LOCK")
    uri = server_manager_instance.start_and_get_uri(folder)
    if uri is None:  # damaged: start empty. Nothing is lost, because the index is filled again from the ledger
        shutil.rmtree(folder)
        uri = server_manager_instance.start_and_get_uri(folder)
    if uri is None:
        sys.exit(f"cannot open {folder}")
    print(uri, flush=True)
    sys.stdin.read()
    server_manager_instance.release_all()


def _wait_for_predecessor(lock: Path) -> None:
    """Waits for the child of a killed parent, which may still be closing the folder. Milvus Lite does not wait."""
    if lock.exists():
        with lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)


if __name__ == "__main__":
    serve(sys.argv[1])
