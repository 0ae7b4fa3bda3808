"""Events."""

from __future__ import annotations

from datetime import datetime

from diffcache_core.kubernetes.metadata import ObjectView
from diffcache_core.kubernetes.view import Time, View


class Series(View):
    count: int = 1
    last_observed_time: Time = None


class InvolvedObject(View):
    name: str = ""
    uid: str = ""


class Event(ObjectView):
    type: str = ""
    reason: str = ""
    message: str = ""
    involved_object: InvolvedObject = InvolvedObject()
    count: int | None = None
    last_timestamp: Time = None
    event_time: Time = None
    series: Series | None = None

    @property
    def time(self) -> datetime:
        """The time of the last occurrence. Its field depends on the program that wrote the event."""
        seen = self.series.last_observed_time if self.series is not None else None
        return seen or self.last_timestamp or self.event_time or self.metadata.creation_timestamp

    @property
    def times(self) -> int:
        return self.series.count if self.series is not None else self.count or 1
