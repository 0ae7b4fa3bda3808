"""Scalers in simulated time: our own function, and those with which it is compared. Pure.

The others follow the algorithm of the horizontal pod autoscaler with its defaults
(kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale): ceil(current * measured / target), a tolerance of
.1, starting pods count as idle, a rise to at most twice as many or four more, and the maximum of the last 300 s before
a fall.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field

from diffcache_core.scaling import Load, Look, ScalingBounds, scale
from diffcache_core.simulator.loops.pods import Seen

HPA_TOLERANCE = 0.1


@dataclass
class BacklogScaler:
    """Calls the function that the operator runs."""

    bounds: ScalingBounds
    wanted: tuple[Look, ...] = ()

    def __call__(self, current: int, seen: Seen) -> int:
        load = Load(seen.at, seen.ready, seen.pending_steps, seen.seconds_per_step, seen.busy)
        answer = scale(current, load, self.wanted, self.bounds)
        self.wanted = answer.wanted
        return answer.replicas


@dataclass
class _Hpa(ABC):
    bounds: ScalingBounds  # its target is not used
    target: float
    window: deque[tuple[float, int]] = field(default_factory=deque)

    def __call__(self, current: int, seen: Seen) -> int:
        ratio = self.total(seen) / current / self.target
        wanted = current if abs(ratio - 1) <= HPA_TOLERANCE else math.ceil(current * ratio - 1e-9)
        wanted = max(1, self.bounds.min_replicas, min(wanted, self.bounds.max_replicas))
        self.window.append((seen.at, wanted))
        while self.window[0][0] < seen.at - self.bounds.stabilization_seconds:
            self.window.popleft()
        if wanted > current:
            return min(wanted, max(2 * current, current + 4))
        return min(current, max(count for _, count in self.window))

    @abstractmethod
    def total(self, seen: Seen) -> float:
        """Returns the measured value, summed over the pods."""


@dataclass
class UtilisationScaler(_Hpa):
    """Scales by the busy share of the devices. `target`: busy share of a pod's device, averaged over a minute as
    metrics pipelines do."""

    recent: deque[float] = field(default_factory=lambda: deque(maxlen=4))

    def total(self, seen: Seen) -> float:
        self.recent.append(seen.busy)
        return sum(self.recent) / len(self.recent)


@dataclass
class RequestScaler(_Hpa):
    """Scales by requests. `target`: requests per pod, queued and running."""

    def total(self, seen: Seen) -> float:
        return seen.requests


@dataclass(frozen=True)
class FixedScaler:
    """Keeps a fixed number of pods."""

    replicas: int

    def __call__(self, current: int, seen: Seen) -> int:
        return self.replicas
