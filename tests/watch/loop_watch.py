"""Watches the event loops of this process: one that stands still in our code is reported, with the stack that held it.

`install` watches every loop from its start. A thread posts a heartbeat to each running loop; one that does not come
through in time is a stall. Reports are files in the folder that the environment's `LOOP_WATCH` names, so that the
processes which a test starts report to the same place (see sitecustomize.py beside this file).

Depends on the standard library only, and on no other file: it runs in processes that know nothing of these tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

FOLDER = "LOOP_WATCH"
STALL_SECONDS = 0.25
"""How long a loop may stand still. Lower finds more, and also what nobody would notice; higher hides what a health
check or another request would feel."""
TICK_SECONDS = 0.05  # between two looks; a stall is found this much late, and lower costs the processes CPU
ROOT = Path(__file__).parents[2]
OURS = tuple(str(ROOT / name) + os.sep for name in ("core", "serving", "operator", "cli"))
NOT_OURS = tuple(str(ROOT / name) + os.sep for name in ("tests", "benchmarks", "examples", "tools"))
COROUTINE = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Watched:
    """A running loop, seen from the watching thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.thread = loop, threading.get_ident()
        self._beats = True
        self._is_told = False
        self._posted, self._lost = 0.0, 0.0
        self._waits: dict[str, int] = {}
        self._ours: list[bool] = []  # of each look since the heartbeat was due: was the loop in our code?

    def look(self, now: float, paused: float) -> None:
        """`paused`: seconds since the last look in which the whole process did not run."""
        if self._beats:
            self._post(now)
            return
        if not self._waits:
            self._waits = cpu_waits()  # only now: reading them for each heartbeat would cost a percent of a core
        self._lost += paused
        frame = sys._current_frames().get(self.thread)
        stack = stack_of(frame)
        self._ours.append(is_ours(stack))
        stalled = now - self._posted
        if self._is_told or stalled <= STALL_SECONDS:
            return
        waited = cpu_waits()
        # Of all threads, for one may wait for another, which waits for a core with the interpreter's lock in its hands.
        waiting = sum(t - self._waits.get(thread, 0) for thread, t in waited.items()) / 1e9
        stalled -= max(waiting, self._lost)
        # In most looks, for a crowd of short callbacks of somebody else may be in ours for the one moment of a look.
        mostly_ours = 2 * sum(self._ours) > len(self._ours)
        if stalled > STALL_SECONDS and mostly_ours and stack and not self._beats:
            self._is_told = True
            report(stalled, stack)

    def _post(self, now: float) -> None:
        self._posted, self._lost, self._waits, self._ours = now, 0.0, {}, []
        self._beats = self._is_told = False
        with contextlib.suppress(RuntimeError):  # it has been closed
            self.loop.call_soon_threadsafe(self._beat)

    def _beat(self) -> None:
        self._beats = True


_watched: list[Watched] = []
_thread: threading.Thread | None = None


def install() -> None:
    """Twice is once."""
    original = asyncio.BaseEventLoop.run_forever
    if getattr(original, "is_watched", False):
        return

    def run_forever(self: asyncio.BaseEventLoop) -> Any:
        watched = Watched(self)
        _watched.append(watched)
        _ensure_thread()
        try:
            return original(self)
        finally:
            _watched.remove(watched)

    run_forever.is_watched = True  # type: ignore[attr-defined]  # the mark that `install` looks for
    asyncio.BaseEventLoop.run_forever = run_forever  # type: ignore[method-assign]


def _ensure_thread() -> None:
    """Started with the first loop, not before: a process may fork until then."""
    global _thread
    if _thread is None or not _thread.is_alive():
        _thread = threading.Thread(target=_watch, name="loop-watch", daemon=True)
        _thread.start()


def _watch() -> None:
    looked, busy = time.monotonic(), time.process_time()
    while True:
        time.sleep(TICK_SECONDS)
        now, used = time.monotonic(), time.process_time()
        late = now - looked - TICK_SECONDS
        # Late without use of the CPU is a process that was stopped. With it, something held the interpreter's lock.
        paused = max(0.0, late - (used - busy))
        for watched in list(_watched):
            watched.look(now, paused)
        looked, busy = now, used


def cpu_waits() -> dict[str, int]:
    """Nanoseconds that each thread of this process was ready to run and had no core, since its start."""
    waits = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            waits[task.name] = int((task / "schedstat").read_text().split()[1])
    return waits


Stack = list[tuple[str, int, str, bool]]  # file, line, name, whether it is a coroutine; the innermost first


def stack_of(frame: FrameType | None) -> Stack:
    stack: Stack = []
    while frame is not None:
        code = frame.f_code
        stack.append((code.co_filename, frame.f_lineno, code.co_name, bool(code.co_flags & COROUTINE)))
        frame = frame.f_back
    return stack


def is_ours(stack: Stack) -> bool:
    """The innermost coroutine of this repository made the call that blocks; a callback has none, and there it is the
    innermost function. A test that itself does something slow on its loop is no fault of the product."""
    files = [entry for entry in stack if entry[0].startswith(OURS + NOT_OURS)]
    coroutines = [entry for entry in files if entry[3]]
    held_by = (coroutines or files)[:1]
    return bool(held_by) and held_by[0][0].startswith(OURS)


def report(seconds: float, stack: Stack) -> None:
    folder = os.environ.get(FOLDER)
    if not folder:
        return
    lines = [f"  {file}:{line} {name}" for file, line, name, _ in reversed(stack)]
    text = json.dumps({"process": sys.orig_argv, "seconds": round(seconds, 3), "stack": lines}) + "\n"
    with contextlib.suppress(OSError):  # the tests have ended
        (Path(folder) / f"{os.getpid()}-{time.monotonic_ns()}.json").write_text(text)


def take_reports(folder: Path) -> list[str]:
    """What was reported since the last call, as text."""
    texts = []
    for path in sorted(folder.glob("*.json")):
        try:
            told = json.loads(path.read_text())
        except ValueError:  # being written
            continue
        path.unlink()
        stack = "\n".join(told["stack"])
        texts.append(f"an event loop stood still for {told['seconds']} s in {told['process']}:\n{stack}")
    return texts
