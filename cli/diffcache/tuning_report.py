"""Shows on one screen what the tuner has decided and why, for a resource in a cluster or a local server. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from diffcache.output import duration
from diffcache.wire import GenerationError
from diffcache_core.foreign import printable
from diffcache_core.resource.status import Condition, LevelStatus, TuningDecision, TuningStatus

_CHOSEN = {"Recommend": "recommended", "": "decided"}
"""The word for the values in the record, by mode. A local server does not report its mode; its stats show the values in
force."""


def read_record(document: str) -> TuningStatus:
    """Reads the record from the JSON in a server's statistics. Raises GenerationError if it is not valid."""
    try:
        return TuningStatus.model_validate_json(document)
    except ValidationError:
        raise GenerationError(
            "INTERNAL", "the server's tuning record is none that this version knows: install the server's version"
        ) from None


def facts(name: str, mode: str, record: TuningStatus, condition: Condition | None = None) -> dict[str, Any]:
    """Returns the record as values for JSON. `mode` is empty if it is not known."""
    active = {} if condition is None else {"active": condition.model_dump(mode="json")}
    return {"name": name, "mode": mode, **record.model_dump(mode="json"), **active}


def layout(
    name: str, mode: str, record: TuningStatus, now: datetime, condition: Condition | None = None
) -> RenderableType:
    heading = Text.assemble((printable(name), "bold"), ": tuning", f" in mode {mode}" if mode else "")
    heading.append(f", revision {record.revision}")
    return Group(heading, _indented(_present(mode, record, condition, now)), *_history(record.history, now))


def _present(mode: str, record: TuningStatus, condition: Condition | None, now: datetime) -> Text:
    lines = [_line("now", record.decision or "no decision yet")]
    if condition is not None:
        since = _ago(condition.last_transition_time, now)
        lines.append(_line(condition.type, f"{condition.status}, {condition.reason}, since {since}"))
        lines.append(_line("", condition.message))
    chosen = _values(record.capacity, record.levels)
    if chosen:
        lines.append(_line(_CHOSEN.get(mode, "in force"), chosen))
    elif mode != "Disabled":
        lines.append(_line("in force", f"what the {'resource itself' if mode else 'manifest'} says"))
    if record.window_start:
        lines.append(_line("figures", f"of the last {_ago(record.window_start, now)}"))
    if record.measured_since:
        lines.append(_line("comparisons", f"of the last {_ago(record.measured_since, now)}, two weeks at most"))
    return Text("\n").join(lines)


def _history(history: Sequence[TuningDecision], now: datetime) -> list[RenderableType]:
    if not history:
        return [Text("\nNothing has been decided yet.", "dim")]
    return [part for decision in history for part in _decision(decision, now)]


def _decision(decision: TuningDecision, now: datetime) -> list[RenderableType]:
    heading = Text.assemble(
        "\n", (printable(decision.reason), "bold"), f", revision {decision.revision}, {_ago(decision.time, now)} ago"
    )
    lines = [
        Text(printable(decision.message)),
        _line("then", _values(decision.capacity, decision.levels)),
        _line("from", _inputs(decision.inputs)),
    ]
    return [heading, _indented(Text("\n").join(lines))]


def _values(capacity: str, levels: Sequence[LevelStatus]) -> str:
    parts = [f"capacity {capacity}"] if capacity else []
    if levels:
        table = ", ".join(f"{level.skip_percent}% from {level.similarity}" for level in levels)
        parts.append(f"levels {table}")
    return "; ".join(parts)


def _inputs(inputs: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in inputs.items()) or "no figures"


def _ago(time: str, now: datetime) -> str:
    """Formats the time that has passed since `time`. A text that is not a time is shown unchanged."""
    try:
        return duration((now - datetime.fromisoformat(time)).total_seconds())
    except (ValueError, TypeError):
        return printable(time)


def _line(what: str, value: str) -> Text:
    return Text.assemble((f"{what:<13}", "dim"), printable(value))


def _indented(item: RenderableType) -> Padding:
    return Padding(item, (0, 0, 0, 2), expand=False)
