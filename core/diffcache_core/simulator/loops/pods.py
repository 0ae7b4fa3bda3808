"""Pods, their queues and their devices in simulated time. It computes the durations of requests and the device time.
Pure.

A request goes to the ready pods in turn, as clients of a headless Service do, and stays in its pod's queue. A pod runs
up to `Device.batch` requests at once, all at the same speed. A pod that is removed finishes its running requests; its
queued ones are sent to the other pods.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

LOOK_SECONDS = 15.0
"""Seconds between two looks of every scaler, as in the horizontal pod autoscaler."""


@dataclass(frozen=True)
class Device:
    """The speed of a pod. All values should be measured on the real device."""

    seconds_per_step: float  # of a request that runs alone
    batch: int  # requests at once
    batch_gain: float  # throughput of a full batch over that of single requests; 1: batching gains nothing
    start_up_seconds: float  # from the request for a pod until it is ready

    def call_seconds(self, size: int) -> float:
        """Returns the seconds of a denoiser call with `size` requests: a constant part, and a part for each request."""
        if self.batch == 1:
            return self.seconds_per_step
        shared = self.batch / self.batch_gain - 1
        return self.seconds_per_step * (1 + shared / (self.batch - 1) * (size - 1))


@dataclass(frozen=True)
class Seen:
    """What a scaler sees."""

    at: float  # seconds
    ready: int
    pending_steps: float  # steps left to run, queued and running
    seconds_per_step: float | None  # device seconds for one step of a request, from the last look with any
    busy: float  # device seconds per second since the last look, over all pods
    requests: int  # queued and running


class Scaler(Protocol):
    def __call__(self, current: int, seen: Seen) -> int:
        """Returns the number of pods from now on."""


class Work(Protocol):
    """The source of the requests' work."""

    def arrive(self, request: int, now: float) -> float:
        """Returns the steps that are left to run; 0: the request is answered at once."""

    def finish(self, request: int, now: float, seconds: float) -> None:
        """The request was answered `seconds` seconds after its arrival."""

    def look(self, now: float, replicas: int, backlog_seconds: float) -> None:
        """Called every LOOK_SECONDS, except while nothing happens. `backlog_seconds`: per pod."""


@dataclass(eq=False)
class _Pod:
    ready_at: float
    since: float  # when it was requested
    running: list[tuple[float, int]] = field(default_factory=list)  # heap of (progress at its end, request)
    queue: deque[tuple[int, float]] = field(default_factory=deque)  # request, steps
    progress: float = 0.0  # steps that a request would have made that runs all the time
    at: float = 0.0  # time of `progress`
    version: int = 0  # events of an older version are ignored
    leaving: bool = False


@dataclass(frozen=True)
class Outcome:
    """The result of a simulation. `seconds`: for each request, from arrival to answer. `pod_seconds`: sum over the
    pods, from the request for a pod until its end."""

    seconds: tuple[float, ...]
    pod_seconds: float
    end: float
    replicas: tuple[tuple[float, int], ...]  # (time, number of pods) at each change


@dataclass
class _Cluster:
    device: Device
    work: Work
    arrivals: Sequence[float]
    pods: list[_Pod] = field(default_factory=list)
    leaving: list[_Pod] = field(default_factory=list)
    waiting: deque[tuple[int, float]] = field(default_factory=deque)  # while no pod is ready
    events: list[tuple[float, int, int, _Pod]] = field(default_factory=list)  # (time, number, version, pod)
    numbers: int = 0
    turn: int = 0
    requests: int = 0
    busy: float = 0.0
    steps_run: float = 0.0
    pod_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)

    def resize(self, replicas: int, now: float) -> None:
        while len(self.pods) < replicas:
            pod = _Pod(now + self.device.start_up_seconds, now, at=now)
            self.pods.append(pod)
            self._plan(pod.ready_at, pod)
        moved: list[tuple[int, float]] = []
        while len(self.pods) > replicas:  # the highest ordinal goes first, as in a StatefulSet
            pod = self.pods.pop()
            self._advance(pod, now)
            moved += pod.queue
            pod.queue.clear()
            pod.leaving = True
            self.leaving.append(pod)
            self._end_if_idle(pod, now)
        for request, steps in moved:
            self._send(request, steps, now)

    def arrive(self, request: int, now: float) -> None:
        steps = self.work.arrive(request, now)
        if steps <= 0:
            self.seconds[request] = 0.0
            self.work.finish(request, now, 0.0)
            return
        self.requests += 1
        self._send(request, steps, now)

    def happen(self) -> None:
        """Handles the next event: a pod becomes ready, or a request ends."""
        now, _, version, pod = heapq.heappop(self.events)
        if version != pod.version:
            return
        self._advance(pod, now)
        if pod.running:  # this event is the end of the first one: rounding of the clock must not prevent it
            pod.progress = max(pod.progress, pod.running[0][0])
        while pod.running and pod.running[0][0] <= pod.progress + 1e-9:
            _, request = heapq.heappop(pod.running)
            self.requests -= 1
            self.seconds[request] = now - self.arrivals[request]
            self.work.finish(request, now, self.seconds[request])
        if not pod.leaving:
            while self.waiting:
                pod.queue.append(self.waiting.popleft())
        self._fill(pod, now)
        self._end_if_idle(pod, now)

    def pending_steps(self, now: float) -> float:
        left = sum(steps for _, steps in self.waiting)
        for pod in (*self.pods, *self.leaving):
            if pod.running:
                self._advance(pod, now)
                left += sum(end for end, _ in pod.running) - len(pod.running) * pod.progress
            left += sum(steps for _, steps in pod.queue)
        return max(0.0, left)

    def ready(self, now: float) -> int:
        return sum(pod.ready_at <= now for pod in self.pods)

    def end(self, now: float) -> None:
        self.pod_seconds += sum(now - pod.since for pod in self.pods)

    def _send(self, request: int, steps: float, now: float) -> None:
        ready = [pod for pod in self.pods if pod.ready_at <= now]
        if not ready:
            self.waiting.append((request, steps))
            return
        self.turn += 1
        pod = ready[self.turn % len(ready)]
        pod.queue.append((request, steps))
        if len(pod.running) < self.device.batch:
            self._advance(pod, now)
            self._fill(pod, now)

    def _advance(self, pod: _Pod, now: float) -> None:
        count = len(pod.running)
        if count:
            made = (now - pod.at) / self.device.call_seconds(count)
            pod.progress += made
            self.busy += now - pod.at
            self.steps_run += made * count
        pod.at = now

    def _fill(self, pod: _Pod, now: float) -> None:
        while pod.queue and len(pod.running) < self.device.batch:
            request, steps = pod.queue.popleft()
            heapq.heappush(pod.running, (pod.progress + steps, request))
        pod.version += 1
        if pod.running:
            left = pod.running[0][0] - pod.progress
            self._plan(now + max(0.0, left) * self.device.call_seconds(len(pod.running)), pod)

    def _plan(self, at: float, pod: _Pod) -> None:
        self.numbers += 1
        heapq.heappush(self.events, (at, self.numbers, pod.version, pod))

    def _end_if_idle(self, pod: _Pod, now: float) -> None:
        if pod.leaving and not pod.running:
            pod.version += 1
            self.leaving.remove(pod)
            self.pod_seconds += now - pod.since


def simulate_pods(
    arrivals: Sequence[float], work: Work, scaler: Scaler, device: Device, *, replicas: int, end: float
) -> Outcome:
    """Simulates until all requests are answered.

    Args:
        arrivals: times in seconds, rising.
        work: gives the steps of each request; it is called when requests arrive and finish.
        scaler: decides every LOOK_SECONDS.
        device: the speed of each pod.
        replicas: number of pods that are ready at the first arrival.
        end: pods count at least until this time.
    """
    start = arrivals[0] if arrivals else 0.0
    cluster = _Cluster(device, work, arrivals, seconds=[0.0] * len(arrivals))
    cluster.resize(replicas, start - device.start_up_seconds)
    for pod in cluster.pods:
        pod.since = start
    history = [(start, replicas)]
    looker = _Looker(scaler, start)
    following, now, look = 0, start, start + LOOK_SECONDS
    while following < len(arrivals) or cluster.requests or look < end:
        arrival = arrivals[following] if following < len(arrivals) else inf
        event = cluster.events[0][0] if cluster.events else inf
        now = min(arrival, event, look)
        if now == event:
            cluster.happen()
        elif now == arrival:
            cluster.arrive(following, now)
            following += 1
        else:
            wanted = looker.look(cluster, replicas, now)
            if wanted != replicas:
                cluster.resize(wanted, now)
                replicas = wanted
                history.append((now, wanted))
            look += LOOK_SECONDS
            if looker.is_at_rest:
                # Nothing runs and nothing has changed for a while: skip the looks until the next request.
                ahead = min(arrival, end)
                look += max(0.0, (ahead - look) // LOOK_SECONDS * LOOK_SECONDS) if ahead < inf else 0.0
    now = max(now, end)
    cluster.end(now)
    return Outcome(tuple(cluster.seconds), cluster.pod_seconds, now, tuple(history))


AT_REST_LOOKS = 242
"""Idle looks in a row without a change after which looks are skipped: longer than an hour, the longest window of a
scaler."""


@dataclass
class _Looker:
    scaler: Scaler
    at: float
    busy: float = 0.0
    steps: float = 0.0
    seconds_per_step: float | None = None
    idle_looks: int = 0

    @property
    def is_at_rest(self) -> bool:
        return self.idle_looks >= AT_REST_LOOKS

    def look(self, cluster: _Cluster, replicas: int, now: float) -> int:
        pending = cluster.pending_steps(now)  # also updates the counts below
        busy, steps = cluster.busy - self.busy, cluster.steps_run - self.steps
        if steps > 0:
            self.seconds_per_step = busy / steps
        ready = cluster.ready(now)
        seen = Seen(now, ready, pending, self.seconds_per_step, busy / (now - self.at), cluster.requests)
        self.at, self.busy, self.steps = now, cluster.busy, cluster.steps_run
        wanted = self.scaler(replicas, seen)
        is_idle = cluster.requests == 0 and wanted == replicas
        self.idle_looks = self.idle_looks + 1 if is_idle else 0
        cluster.work.look(now, replicas, pending * (self.seconds_per_step or 0.0) / replicas)
        return wanted


def simulate_recorded(
    arrivals: Sequence[float],
    steps_left: Sequence[float],
    scaler: Scaler,
    device: Device,
    *,
    replicas: int,
    end: float,
    on_look: Callable[[float, int, float], None] = lambda now, replicas, backlog: None,
) -> Outcome:
    """Like `simulate_pods`, with the steps that the cache left of each request known in advance."""
    return simulate_pods(arrivals, _Recorded(steps_left, on_look), scaler, device, replicas=replicas, end=end)


@dataclass
class _Recorded:
    steps_left: Sequence[float]
    on_look: Callable[[float, int, float], None]

    def arrive(self, request: int, now: float) -> float:
        return self.steps_left[request]

    def finish(self, request: int, now: float, seconds: float) -> None: ...

    def look(self, now: float, replicas: int, backlog_seconds: float) -> None:
        self.on_look(now, replicas, backlog_seconds)
