"""The fields of a config that may change while requests run, checked and ready to be applied."""

from __future__ import annotations

from dataclasses import dataclass

from diffcache_core.cache.resume import Levels
from diffcache_core.serving_config import ServingConfig
from diffcache_serving.values.defaults import ModelDefaults


@dataclass(frozen=True)
class HotConfig:
    """Each component takes its own fields in `apply`. Applying the same value twice changes nothing."""

    config: ServingConfig  # fields that must not change have their values from the start of the process
    defaults: ModelDefaults
    levels: Levels
    levels_source: str  # "model", "manifest", "tuner" or "none"
