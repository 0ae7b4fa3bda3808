"""Checks whether the pods use the present configuration, and which part of it hangs. Pure."""

from __future__ import annotations

from diffcache_operator.conditions import ConditionState
from diffcache_operator.figures import Figures

_HANGING = {
    "file": "the file itself (is the image in status.serving.image older than this operator?)",
    "defaults": "spec.model: the model cannot make that size",
    "levels": "spec.cache.levels",
    "cache": "spec.cache.capacity: the ledger does not answer, or its disk is full",
    "quality": "spec.tuning.quality",
    "shadow_caches": "the simulated caches of spec.tuning: the ledger does not answer",
}
"""The field to check for each name in names.CONFIG_PARTS."""


def config_progress(figures: Figures, revision: str) -> ConditionState | None:
    """Returns a condition if a pod does not use the whole config of this revision yet. None if all do, or report
    nothing, as other versions do."""
    if figures.config_pending:
        parts = "; ".join(text for part, text in _HANGING.items() if part in figures.config_pending)
        return ConditionState(
            "Reconciling",
            "True",
            "ConfigHangs",
            f"a pod has not taken over all of the present configuration and tries it again: {parts}. `kubectl logs` "
            "says why",
        )
    if figures.config_revisions and revision and figures.config_revisions != {revision}:
        return ConditionState(
            "Reconciling",
            "True",
            "ConfigOnItsWay",
            "not every pod has taken over the present configuration: the kubelet passes it on in about a minute",
        )
    return None
