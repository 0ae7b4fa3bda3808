"""The output of `kubectl diffcache status`, as JSON and on one screen. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from diffcache.cluster.objects import Resource
from diffcache.cluster.pods import news, ready_containers, restarts, trouble
from diffcache.cluster.reading import Found, Host
from diffcache.output import duration, size
from diffcache_core.foreign import printable, printable_lines
from diffcache_core.kubernetes.events import Event
from diffcache_core.resource.status import Condition

EVENTS = 8
"""Number of newest events that are shown. With more, the conditions would not fit on a terminal of 50 lines."""

_BAD_NEWS = (
    "Stalled",
    "Reconciling",
    "UpdateAvailable",
    "CRDOutdated",
    "ClaimsLeft",
)  # conditions that should be False
_COLOURS = {"True": "green", "False": "red", "Unknown": "yellow"}


def facts(around: Host, now: datetime) -> dict[str, Any]:
    resource = around.resource
    found: dict[str, Found[Any]] = {"pods": around.pods, "volumes": around.claims, "events": around.events}
    return {
        "name": resource.name,
        "namespace": resource.namespace,
        "ready": resource.is_ready,
        "generation": resource.metadata.generation,
        "model": resource.spec.model.source,
        "index": resource.spec.index.type,
        **resource.status.model_dump(mode="json"),
        "pods": [
            {
                "name": pod.name,
                "phase": pod.status.phase,
                "ready": pod.is_ready,
                "restarts": restarts(pod),
                "node": pod.spec.node_name,
                "trouble": trouble(pod, resource, around.claims.items, now),
            }
            for pod in around.pods.items
        ],
        "volumes": [
            {
                "name": claim.name,
                "phase": claim.status.phase,
                "size": claim.size,
                "storage_class": claim.spec.storage_class_name,
            }
            for claim in around.claims.items
        ],
        "events": [
            {
                "time": event.time.isoformat(),
                "type": event.type,
                "reason": event.reason,
                "message": event.message,
                "count": event.times,
            }
            for event in _newest(around.events.items)
        ],
        "not_readable": {name: one.missing for name, one in found.items() if one.missing},
    }


def layout(around: Host, now: datetime) -> RenderableType:
    resource = around.resource
    blocks: list[RenderableType] = [_headline(resource, now), _indented(_summary(resource))]
    blocks += _section("Conditions", Found(_conditions(resource.status.conditions, now)), "none yet")
    blocks += _section("Pods", Found(_pods(around, now), around.pods.missing), "none")
    blocks += _section("Volumes", Found(_volumes(around), around.claims.missing), "none")
    blocks += _section("Events", Found(_events(around.events.items, now), around.events.missing), "none of late")
    return Group(*blocks)


def _headline(resource: Resource, now: datetime) -> Text:
    ready, age = resource.ready, duration((now - resource.metadata.creation_timestamp).total_seconds())
    line = Text.assemble((resource.name, "bold"), f" in {resource.namespace}, {age} old: ")
    if ready is None:
        return line.append("no operator has looked at it yet: is diffcache's operator running?", "yellow")
    word = "ready" if ready.status == "True" else "not ready" if ready.status == "False" else "readiness unknown"
    line.append(f"{word} ({printable(ready.reason)})", f"bold {_COLOURS[ready.status]}")
    if not resource.is_seen:
        line.append(
            f"\nThe operator has not looked at the latest change yet (generation {resource.metadata.generation}, seen "
            f"{resource.status.observed_generation}): what follows is about the one before.",
            "yellow",
        )
    return line


def _summary(resource: Resource) -> Table:
    spec, status = resource.spec, resource.status
    index = status.condition("IndexReady")
    rows = [
        ("model", spec.model.source),
        ("endpoint", status.endpoint or "none yet"),
        ("replicas", f"{status.ready_replicas} ready of {spec.serving.replicas} wanted{_scaling(resource)}"),
        ("index", spec.index.type + (f", {index.reason}" if index is not None else "")),
        ("image", _image(resource)),
        ("cache", _cache(resource)),
    ]
    if spec.tuning.mode != "Disabled":
        rows.append(("tuning", _tuning(resource)))
    if status.serving.available:
        name = resource.name
        rows.append(("update", f"{status.serving.available}: `kubectl diffcache upgrade {name}` moves to it"))
    return _grid(rows, ("dim", ""))


def _image(resource: Resource) -> str:
    if not resource.image:
        return "the operator chooses it at the first start"
    return f"{resource.image} ({'pinned by spec.serving.image' if resource.spec.serving.image else 'recorded'})"


def _scaling(resource: Resource) -> str:
    scaling, last = resource.spec.autoscaling, resource.status.autoscaling
    if scaling.mode == "Disabled":
        return ""
    latest = f"; last {last.message}" if last is not None and last.message else ""
    return f" ({scaling.min_replicas} to {scaling.max_replicas} by the operator{latest})"


def _tuning(resource: Resource) -> str:
    tuning, name = resource.status.tuning, resource.name
    decision = tuning.decision if tuning is not None and tuning.decision else "no decision yet"
    return f"{resource.spec.tuning.mode}: {decision} (`kubectl diffcache tuning {name}` shows more)"


def _cache(resource: Resource) -> str:
    cache, tuning = resource.status.cache, resource.status.tuning
    tuned = tuning.capacity if tuning is not None and resource.spec.tuning.mode == "Auto" else ""
    capacity = tuned or resource.spec.cache.capacity
    if cache is None:
        return f"no figures yet, capacity {capacity}"
    return (
        f"steps saved ratio {cache.steps_saved_ratio or '-'}, hit ratio {cache.hit_ratio or '-'}, "
        f"{cache.entries} entries, {size(cache.bytes)} of {capacity}"
    )


def _conditions(conditions: Sequence[Condition], now: datetime) -> list[RenderableType]:
    shown: list[RenderableType] = []
    for condition in conditions:
        fine = (condition.status == "True") != (condition.type in _BAD_NEWS)
        colour = "green" if fine else _COLOURS["Unknown"] if condition.type in _BAD_NEWS else _COLOURS[condition.status]
        since = (now - datetime.fromisoformat(condition.last_transition_time)).total_seconds()
        heading = Text.assemble(
            f"{condition.type:<16}", (f"{condition.status:<8}", colour), printable(condition.reason)
        )
        shown.append(heading.append(f"  since {duration(since)}", "dim"))
        # Messages are long and say what to do, so they are below, over the whole width, not in a narrow column.
        shown.append(_indented(_lines(condition.message)))
    return shown


def _pods(around: Host, now: datetime) -> list[RenderableType]:
    rows = [
        (
            pod.name,
            ready_containers(pod),
            pod.status.phase,
            restarts(pod),
            pod.spec.node_name or "-",
            duration((now - pod.metadata.creation_timestamp).total_seconds()),
        )
        for pod in around.pods.items
    ]
    troubles = [(pod.name, news(pod, around.resource, around.claims.items, now)) for pod in around.pods.items]
    shown: list[RenderableType] = [_table(("POD", "READY", "PHASE", "RESTARTS", "NODE", "AGE"), rows)] if rows else []
    return shown + [Text.assemble((name, "yellow"), " ", _lines(what)) for name, what in troubles if what]


def _volumes(around: Host) -> list[RenderableType]:
    rows = [
        (claim.name, claim.status.phase, claim.size or "-", claim.spec.storage_class_name or "-")
        for claim in around.claims.items
    ]
    return [_table(("CLAIM", "PHASE", "SIZE", "CLASS"), rows)] if rows else []


def _events(events: Sequence[Event], now: datetime) -> list[RenderableType]:
    rows = [
        (
            f"{duration((now - event.time).total_seconds())} ago" + (f" (x{event.times})" if event.times > 1 else ""),
            event.type,
            event.reason,
            event.message,
        )
        for event in _newest(events)
    ]
    return [_table(("WHEN", "TYPE", "REASON", "MESSAGE"), rows)] if rows else []


def _newest(events: Sequence[Event]) -> Sequence[Event]:
    return sorted(events, key=lambda event: event.time)[-EVENTS:]


def _section(title: str, found: Found[RenderableType], none: str) -> Iterator[RenderableType]:
    yield Text(f"\n{title}", "bold")
    if found.missing:
        yield _indented(Text(f"not shown: {found.missing}", "yellow"))
    for item in found.items or ([] if found.missing else [Text(none, "dim")]):
        yield _indented(item)


def _indented(item: RenderableType) -> Padding:
    return Padding(item, (0, 0, 0, 2), expand=False)


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    return table


def _grid(rows: Sequence[tuple[str, str]], styles: tuple[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    for style in styles:
        table.add_column(style=style, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def _lines(text: str) -> Text:
    """Returns a text of a pod or an operator with its line breaks. Other control characters are escaped."""
    return Text(printable_lines(text))
