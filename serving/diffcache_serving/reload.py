"""What of a new config a running process takes over. Pure.

The rest waits for the next start: the operator replaces the pod for it.
"""

from __future__ import annotations

from typing import Any

from diffcache_core.serving_config import ServingConfig

HOT_FIELDS = frozenset({"batch_max_size", "queue_max_steps", "space_grace_seconds", "tuning"})
HOT_MODEL_FIELDS = frozenset({"steps", "guidance", "width", "height", "max_pixels"})
HOT_CACHE_FIELDS = frozenset({"capacity_bytes", "levels"})


def take_hot(running: ServingConfig, new: ServingConfig) -> ServingConfig:
    """`running`, with those fields of `new` that may change under running requests."""
    hot = {name: getattr(new, name) for name in HOT_FIELDS}
    model = {name: getattr(new.model, name) for name in HOT_MODEL_FIELDS}
    cache = {name: getattr(new.cache, name) for name in HOT_CACHE_FIELDS}
    same_model = new.model.source == running.model.source  # the scorer goes with the model
    return running.model_copy(
        update={
            **hot,
            "quality": new.quality if same_model else running.quality,
            "model": running.model.model_copy(update=model),
            "cache": running.cache.model_copy(update=cache),
        }
    )


def changes(before: ServingConfig, after: ServingConfig) -> dict[str, Any]:
    """What is different, by dotted field: the values of `after`."""
    old, new = (_flat(config.model_dump(mode="json")) for config in (before, after))
    return {name: value for name, value in new.items() if old[name] != value}


def _flat(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in document.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
