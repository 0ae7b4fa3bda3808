"""What of a config may change under running requests, checked and ready to be applied."""

from __future__ import annotations

from dataclasses import dataclass

from diffcache_core.cache.resume import Levels
from diffcache_core.serving_config import ServingConfig
from diffcache_serving.values.defaults import ModelDefaults


@dataclass(frozen=True)
class HotConfig:
    """Each component takes what is its own with `apply`; twice is the same."""

    config: ServingConfig  # what must not change is as it was at the start
    defaults: ModelDefaults
    levels: Levels
    levels_source: str  # "model", "manifest", "tuner" or "none"
