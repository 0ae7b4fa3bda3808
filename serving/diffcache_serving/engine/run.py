"""What the event loop asks of the device thread, and how the answers reach it."""

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
    """Seconds of one run. `queue` is all waiting for the device, over encode, steps and decode."""

    queue: float = 0.0
    encode: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0


@dataclass(frozen=True)
class Drawn:
    """What the device thread made of a run."""

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
        """Event loop: it will not be done."""
        resolve(self.future, None, error)


@dataclass(eq=False)
class Spare:
    work: Callable[[], Any]
    between_steps: bool
    future: asyncio.Future[Any]

    def give_up(self, error: BaseException) -> None:
        """Event loop: it will not be done."""
        resolve(self.future, None, error)


class Run:
    """One request in the step loop. An async context manager: leaving it cancels what is left to do."""

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
        """`start(run)` hands it to the device thread."""
        self.request, self.text, self.found, self.keep = request, text, found, keep
        self.timings = Timings()  # filled when the picture is there, as the next two
        self.states: list[CapturedState] = []
        self.flagged = False
        self.posted = 0.0  # by time.perf_counter, when it was handed over
        self.cancelled = threading.Event()
        self.gone: asyncio.Future[None] = loop.create_future()
        """Done when the device has nothing to do with it any more: a call that has begun ends, whoever leaves."""
        self._start = start
        self._on_step = on_step
        self._steps: asyncio.Queue[int | None] = asyncio.Queue()  # None: no further step will come
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
            self._done.exception()  # seen: else the garbage collector would log it, though the caller left
        else:
            self._done.cancel()

    async def image(self) -> Image.Image:
        """Raises DeviceOutOfMemory, EngineStopped, or whatever went wrong on the device."""
        return await self._done

    async def progress(self) -> AsyncIterator[int]:
        """Steps done or skipped so far, each time that changes, until the last step is done."""
        while (step := await self._steps.get()) is not None:
            yield step

    def stepped(self, i: int) -> None:
        """Event loop: one step was made."""
        self._on_step()
        self._steps.put_nowait(i)

    def drawn(self, drawn: Drawn) -> None:
        """Event loop: there is a picture."""
        self.timings, self.states, self.flagged = drawn.timings, drawn.states, drawn.flagged
        self._end()
        resolve(self._done, drawn.image, None)

    def left(self) -> None:
        """Event loop: it was cancelled, and the device has left it."""
        self._end()

    def give_up(self, error: BaseException) -> None:
        """Event loop: it will not be done."""
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
