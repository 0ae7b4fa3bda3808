"""What the loops do is worth one event each time, and looks are worth none."""

from __future__ import annotations

from typing import Any

import pytest

from diffcache_core.resource.status import (
    AutoscalingStatus,
    Condition,
    DiffusionCacheStatus,
    TuningDecision,
    TuningStatus,
)
from diffcache_operator.conditions import ConditionState, as_before, steady
from diffcache_operator.events import turns
from tests.operator.resources import cache

NOW = "2026-11-24T10:00:00Z"


def condition(kind: str, status: Any, reason: str, message: str = "text") -> Condition:
    return Condition(
        type=kind, status=status, reason=reason, message=message, observed_generation=3, last_transition_time=NOW
    )


READY = condition("Ready", "True", "Serving")


def status(*conditions: Condition, **more: Any) -> DiffusionCacheStatus:
    return DiffusionCacheStatus(conditions=[READY, *conditions], **more)


def decision(revision: int, reason: str = "Loosened") -> TuningStatus:
    entry = TuningDecision(time=NOW, revision=revision, reason=reason, message="20% from 0.9 to 0.85", capacity="64Mi")
    return TuningStatus(revision=revision, history=[entry])


REST = condition("TuningActive", "True", "AtRest")
TUNED = condition("TuningActive", "True", "Tuned")
RECOMMENDED = condition("TuningActive", "True", "Recommended")
DOWN = condition("TuningActive", "False", "PrometheusDown")
COOLING = condition("TuningActive", "False", "CoolingDown")
SCALES = condition("ScalingActive", "True", "Following")
REFUSED = condition("ScalingActive", "False", "Refused")
TWO, THREE = (AutoscalingStatus(replicas=n, message=f"to {n}", time=NOW) for n in (2, 3))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (status(), status(), []),
        (status(), status(REST), []),
        (status(REST), status(DOWN), [("Warning", "PrometheusDown")]),
        (status(DOWN), status(DOWN), []),
        (status(DOWN), status(COOLING), [("Normal", "CoolingDown")]),
        (status(COOLING), status(REST), [("Normal", "TuningActive")]),
        (status(REST), status(TUNED, tuning=decision(1)), [("Normal", "TuningLoosened")]),
        (status(TUNED, tuning=decision(1)), status(REST, tuning=decision(1)), []),
        (status(REST), status(RECOMMENDED, tuning=decision(1)), [("Normal", "TuningRecommended")]),
        (status(tuning=decision(1)), status(tuning=decision(2, "Reset")), [("Normal", "TuningReset")]),
        (status(SCALES), status(SCALES, autoscaling=TWO), [("Normal", "Scaled")]),
        (status(SCALES, autoscaling=TWO), status(SCALES, autoscaling=TWO), []),
        (status(SCALES, autoscaling=TWO), status(SCALES, autoscaling=THREE), [("Normal", "Scaled")]),
        (status(SCALES), status(REFUSED), [("Warning", "Refused")]),
        (status(REFUSED), status(), []),
    ],
)
def test_turns(old: DiffusionCacheStatus, new: DiffusionCacheStatus, told: list[tuple[str, str]]) -> None:
    assert [(event["type"], event["reason"]) for event in turns(cache(), old, new, NOW)] == told


@pytest.mark.parametrize(
    ("new", "old", "kept"),
    [
        ("only 12 comparisons so far", "only 9 comparisons so far", True),
        ("p95 is 3.25 s, and 1e-05", "p95 is 0.5 s, and 2", True),
        ("levels 20% from 0.9", "capacity 20", False),
        ("", "", True),
    ],
)
def test_a_text_stands_still_while_only_its_numbers_move(new: str, old: str, kept: bool) -> None:
    assert steady(new, old) == (old if kept else new)
    before, after = ConditionState("A", "False", "X", old), ConditionState("A", "False", "X", new)
    assert after.steady(before).message == (old if kept else new)
    assert after.steady(ConditionState("A", "False", "Y", old)) == after
    assert after.steady(None) == after


def test_what_a_condition_says_at_present() -> None:
    assert as_before(status(DOWN), "TuningActive") == ConditionState("TuningActive", "False", "PrometheusDown", "text")
    assert as_before(status(), "TuningActive") is None
