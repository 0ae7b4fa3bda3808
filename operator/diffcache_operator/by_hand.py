"""Changes of children by hand: which one was undone last, and which volume claims are left over. Pure."""

from __future__ import annotations

from datetime import datetime

from diffcache_core.resource.spec import DiffusionCache, ScalingMode
from diffcache_core.resource.status import CorrectionStatus
from diffcache_operator.conditions import ConditionState
from diffcache_operator.observed import Observed

MESSAGE_LENGTH = 1024  # characters of a correction, as in the CRD
SHOWN_CLAIMS = 10  # claims that a message names at most
AGAIN_SECONDS = 600.0
"""Seconds between two events about the same correction. A lower value fills the list of events if another program
writes all the time, such as an autoscaler of the StatefulSet."""


def last_correction(message: str, before: CorrectionStatus | None, now: str) -> CorrectionStatus | None:
    """Returns the correction for the status. `message`: the change that was undone just now, or empty. A repeated
    correction is only shown again after AGAIN_SECONDS. `now`: RFC 3339."""
    if not message:
        return before
    made = CorrectionStatus(message=message[:MESSAGE_LENGTH], time=now)
    if before is None or before.message != made.message:
        return made
    age = datetime.fromisoformat(now) - datetime.fromisoformat(before.time)
    return made if age.total_seconds() > AGAIN_SECONDS else before


def claims_left(resource: DiffusionCache, observed: Observed) -> ConditionState | None:
    """Returns a condition about claims of pods beyond the wanted number. They are left over when the cache or the
    StatefulSet was scaled down. The operator never deletes them, because they may hold data."""
    spec, name = resource.spec, resource.metadata.name
    own_loop = spec.autoscaling.mode is ScalingMode.OPERATOR
    most = max(1, spec.serving.replicas, (spec.autoscaling.max_replicas or 1) if own_loop else 1)
    used = {f"data-{pod.name}" for pod in observed.pods} | {f"data-{name}-{i}" for i in range(most)}
    left = sorted(claim.name for claim in observed.claims if claim.name not in used)
    if not left:
        return None
    shown = " ".join(left[:SHOWN_CLAIMS]) + (" ..." if len(left) > SHOWN_CLAIMS else "")
    message = (
        "volume claims of pods that are gone keep their volumes; a pod of the same number would use them again. If "
        f"none is to come: `kubectl delete pvc {shown}`"
    )
    return ConditionState("ClaimsLeft", "True", "ScaledDown", message)
