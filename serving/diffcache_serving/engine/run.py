"""The jobs that the event loop sends to the device thread, and the way their results come back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from PIL import Image

from diffcache_core.generation import GenerationRequest
from diffcache_serving.values.found import CapturedState, Found
from diffcache_serving.values.text import TextEncoding


@dataclass
class Timings:
    """Seconds of one run. `queue` is the total wait for the device: before encode, steps and decode."""

    queue: float = 0.0
    encode: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0


@dataclass(frozen=True)
class Drawn:
    """The result of a run from the device thread."""

    image: Image.Image
    flagged: bool
    states: list[CapturedState]
    timings: Timings


@dataclass(eq=False)
class Encode:
    request: GenerationRequest
    future: asyncio.Future[tuple[TextEncoding, Timings]]
    posted: float = field(default_factory=time.perf_counter)

    def give_up(self, error: BaseException) -> None:
        """Ends the job with `error`. Runs on the event loop."""
        resolve(self.future, None, error)


@dataclass(eq=False)
class Spare:
    work: Callable[[], Any]
    between_steps: bool
    future: asyncio.Future[Any]

    def give_up(self, error: BaseException) -> None:
        """Ends the job with `error`. Runs on the event loop."""
        resolve(self.future, None, error)


class Run:
    """One request in the step loop. An async context manager: on exit it cancels the remaining steps."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        start: Callable[[Run], None],
        request: GenerationRequest,
        text: TextEncoding,
        found: Found,
        keep: tuple[int, ...],
        on_step: Callable[[], None],
    ) -> None:
        """`start(run)` sends the run to the device thread."""
        self.request, self.text, self.found, self.keep = request, text, found, keep
        self.timings = Timings()  # set when the picture is ready, like `states` and `flagged`
        self.states: list[CapturedState] = []
        self.flagged = False
        self.posted = 0.0  # time.perf_counter when the run was sent to the device thread
        self.cancelled = threading.Event()
        self.gone: asyncio.Future[None] = loop.create_future()
        """Done when the device has left this run. A device call that has begun runs to its end, even after a cancel."""
        self._start = start
        self._on_step = on_step
        self._steps: asyncio.Queue[int | None] = asyncio.Queue()  # None: no further step follows
        self._done: asyncio.Future[Image.Image] = loop.create_future()

    async def __aenter__(self) -> Self:
        self.posted = time.perf_counter()
        self._start(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancelled.set()
        if self._done.done() and not self._done.cancelled():
            self._done.exception()  # marks it as retrieved; otherwise the garbage collector would log it
        else:
            self._done.cancel()

    async def image(self) -> Image.Image:
        """Waits for the picture. Raises DeviceOutOfMemory, NotFinite, EngineStopped, or another error of the device."""
        return await self._done

    async def progress(self) -> AsyncIterator[int]:
        """Yields the number of steps done or skipped so far, after each step, until the last step is done."""
        while (step := await self._steps.get()) is not None:
            yield step

    def stepped(self, i: int) -> None:
        """Records that step `i` is reached. Runs on the event loop."""
        self._on_step()
        self._steps.put_nowait(i)

    def drawn(self, drawn: Drawn) -> None:
        """Ends the run with its picture. Runs on the event loop."""
        self.timings, self.states, self.flagged = drawn.timings, drawn.states, drawn.flagged
        self._end()
        resolve(self._done, drawn.image, None)

    def left(self) -> None:
        """Records that the device has left the cancelled run. Runs on the event loop."""
        self._end()

    def give_up(self, error: BaseException) -> None:
        """Ends the run with `error`. Runs on the event loop."""
        self._end()
        resolve(self._done, None, error)

    def _end(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)
        self._steps.put_nowait(None)


def resolve(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
