"""Applies a new config to a running process.

Only some fields can change in a running process. The others wait for the next start: the operator replaces the pod.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import structlog

from diffcache_core.cache.resume import Levels
from diffcache_core.generation import InvalidRequest
from diffcache_core.serving_config import ServingConfig
from diffcache_serving.config_file import ConfigFile
from diffcache_serving.config_watch import NotWhole
from diffcache_serving.engine.loading import LoadedModel
from diffcache_serving.metrics import Metrics
from diffcache_serving.values.defaults import choose_defaults
from diffcache_serving.values.errors import ModelError
from diffcache_serving.values.hot_config import HotConfig

HOT_FIELDS = frozenset({"batch_max_size", "queue_max_steps", "space_grace_seconds", "tuning"})
HOT_MODEL_FIELDS = frozenset({"steps", "guidance", "width", "height", "max_pixels"})
HOT_CACHE_FIELDS = frozenset({"capacity_bytes", "levels"})


log = structlog.get_logger("diffcache.server")


class Component(Protocol):
    async def apply(self, hot: HotConfig) -> None:
        """Uses this config from now on. A second call with the same config changes nothing.

        May raise any exception; the caller then tries again later.
        """


class Reloader:
    """Holds the current config and gives each new one to the components."""

    def __init__(
        self, config: ServingConfig, model: LoadedModel, components: Mapping[str, Component], metrics: Metrics
    ) -> None:
        """`components` by name. Those that may fail have their name in names.CONFIG_PARTS."""
        self.config = config
        self._model, self._components, self._metrics = model, components, metrics
        self._applied: dict[str, HotConfig] = {}  # by component

    async def start(self) -> None:
        """Applies the first config to every component but the cache, which `Cache.repair` has brought up already, also
        where its ledger does not answer. Raises what the components raise."""
        hot = await self._hot(self.config)
        for part, component in self._components.items():
            if part != "cache":
                await self._apply(part, component, hot)

    async def take_over(self, file: ConfigFile) -> None:
        """Applies those fields of a new config that may change in a running process. A second call changes nothing.

        Every component gets the config, even if another one fails. When the same config is tried again, only the
        components that failed get it again. Raises NotWhole with the parts that failed. If the model cannot make the
        default size or N of the new config, nothing changes.
        """
        config = take_hot(self.config, file.config)
        hot = await self._hot(config)
        changed, waits = changes(self.config, config), changes(config, file.config)
        self.config = config
        hanging = {}
        for part, component in self._components.items():
            try:
                await self._apply(part, component, hot)
            except Exception as error:  # a ledger that is down, a full disk, a bug: each has its own type
                hanging[part] = repr(error)
        if hanging:
            if changed:  # otherwise this is a repeated attempt
                log.warning("config reloaded in part", revision=file.revision, changed=changed)
            raise NotWhole(hanging)
        self._metrics.config_taken_over(file.revision, config.tuning.revision)
        log.info("config reloaded", revision=file.revision, changed=changed, at_next_start=sorted(waits))

    async def _hot(self, config: ServingConfig) -> HotConfig:
        try:
            defaults = choose_defaults(config.model, self._model.own_size, self._model.diffusion.size_multiple)
            await asyncio.to_thread(self._model.diffusion.step_counts.check, defaults.steps)
            levels, source = choose_levels(config, self._model)
        except (ModelError, InvalidRequest) as error:
            raise NotWhole({"defaults": str(error)}) from None
        except ValueError as error:
            raise NotWhole({"levels": str(error)}) from None
        return HotConfig(config, defaults, levels, source)

    async def _apply(self, part: str, component: Component, hot: HotConfig) -> None:
        if self._applied.get(part) == hot:
            return
        await component.apply(hot)
        self._applied[part] = hot


def choose_levels(config: ServingConfig, model: LoadedModel) -> tuple[Levels, str]:
    """Returns the levels to use, and their source: "model", "manifest", "tuner" or "none"."""
    own = config.cache.level_table(model.levels.reseed_skip_percent)
    if own is None:
        return model.levels, model.levels_source
    return own, "tuner" if config.tuning.chose_levels else "manifest"


def take_hot(running: ServingConfig, new: ServingConfig) -> ServingConfig:
    """Returns `running` with those fields of `new` that may change while requests run."""
    hot = {name: getattr(new, name) for name in HOT_FIELDS}
    model = {name: getattr(new.model, name) for name in HOT_MODEL_FIELDS}
    cache = {name: getattr(new.cache, name) for name in HOT_CACHE_FIELDS}
    same_model = new.model.source == running.model.source  # the scorer belongs to the model
    return running.model_copy(
        update={
            **hot,
            "quality": new.quality if same_model else running.quality,
            "model": running.model.model_copy(update=model),
            "cache": running.cache.model_copy(update=cache),
        }
    )


def changes(before: ServingConfig, after: ServingConfig) -> dict[str, Any]:
    """Returns the fields that differ, as dotted names, with their values in `after`."""
    old, new = (_flat(config.model_dump(mode="json")) for config in (before, after))
    return {name: value for name, value in new.items() if old[name] != value}


def _flat(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in document.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
