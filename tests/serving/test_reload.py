"""What of a new config is taken over without a restart, and when it is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic.alias_generators import to_camel

from diffcache_core.resource.manifest import parse_manifest
from diffcache_core.resource.rules import Change, fields_by_change
from diffcache_core.resource.spec import DiffusionCache, DiffusionCacheSpec, QualitySpec, TuningMode, TuningSpec
from diffcache_core.resource_to_config import Host, build_serving_config
from diffcache_core.serving_config import ListenConfig, ServingConfig
from diffcache_serving.config_file import ConfigFile, read_config_file
from diffcache_serving.config_watch import NotWhole, watch_config
from diffcache_serving.reload import changes, take_hot

MANIFEST = Path(__file__).parents[2] / "examples" / "quickstart.yaml"
_GIVEN = parse_manifest(MANIFEST.read_text())
RESOURCE = _GIVEN.model_copy(
    update={
        "spec": _GIVEN.spec.model_copy(
            update={"tuning": TuningSpec(mode=TuningMode.RECOMMEND, quality=QualitySpec(scorer="bundled://emoji-clip"))}
        )
    }
)
OF_THE_OPERATOR = (  # Hot, and no concern of the serving process
    ("serving", "replicas"),
    ("reclaim_policy",),
    ("prometheus",),
    ("autoscaling",),
    ("tuning", "quality", "target_percent"),
    ("tuning", "latency"),
    ("tuning", "capacity"),
    ("tuning", "min_similarity"),
)
VALUES: dict[str, Any] = {
    "steps": 11,
    "guidance": "1.5",
    "width": 128,
    "height": 128,
    "max_pixels": 65536,
    "max_size": 3,
    "max_steps": 77,
    "capacity": "33Mi",
    "levels": [{"skipPercent": 10, "similarity": "0.5"}],
    "space_grace_seconds": 5,
    "mode": "Disabled",
    "shadow_percent": 7,
}


def config_of(resource: DiffusionCache) -> ServingConfig:
    return build_serving_config(resource, Host(Path("/data"), ListenConfig()))


def with_value(path: tuple[str, ...], value: Any) -> DiffusionCache:
    document = RESOURCE.model_dump(by_alias=True, mode="json", exclude_none=True)
    block = document["spec"]
    *parents, last = map(to_camel, path)
    for name in parents:
        block = block[name]
    block[last] = value
    return DiffusionCache.model_validate(document)


HOT = [
    path
    for path, change in fields_by_change(DiffusionCacheSpec)
    if change is Change.HOT and not any(path[: len(prefix)] == prefix for prefix in OF_THE_OPERATOR)
]


@pytest.mark.parametrize("path", HOT, ids=".".join)
def test_every_hot_field_of_the_resource_is_taken_over(path: tuple[str, ...]) -> None:
    running, new = config_of(RESOURCE), config_of(with_value(path, VALUES[path[-1]]))
    assert changes(running, new)
    assert take_hot(running, new) == new


@pytest.mark.parametrize(
    ("path", "value"),
    [(("model", "scheduler"), "Euler"), (("cache", "state"), "Trajectory"), (("model", "source"), "bundled://other")],
    ids=str,
)
def test_the_rest_waits_for_the_next_start(path: tuple[str, ...], value: str) -> None:
    running, new = config_of(RESOURCE), config_of(with_value(path, value))
    assert take_hot(running, new) == running
    assert list(changes(running, new)) == [".".join(path)]


def test_the_scorer_that_goes_with_another_model_waits_with_it() -> None:
    resource = RESOURCE.model_copy(
        update={"spec": RESOURCE.spec.model_copy(update={"tuning": TuningSpec(mode=TuningMode.RECOMMEND)})}
    )
    running = config_of(resource)
    new = running.model_copy(
        update={
            "model": running.model.model_copy(update={"source": "bundled://other"}),
            "quality": running.quality.model_copy(update={"scorer": ""}),
        }
    )
    assert running.quality.scorer
    assert take_hot(running, new) == running


# ---- the file --------------------------------------------------------------------------------------------------------


class Mounted:
    """A ConfigMap as a kubelet mounts it: the file links to `..data`, which links to a folder that is swapped whole."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        folder.mkdir()
        self.path = folder / "config.json"
        self.write(config_of(RESOURCE).model_dump_json())
        self.path.symlink_to(Path("..data", "config.json"))

    def write(self, text: str) -> None:
        self.count += 1
        version, link, new = self.folder / f"..{self.count}", self.folder / "..data", self.folder / "..data_tmp"
        version.mkdir()
        (version / "config.json").write_text(text)
        new.symlink_to(version.name)
        new.rename(link)


class Watching:
    """The watch as a task, and what it took over."""

    def __init__(self, path: Path) -> None:
        self.taken: asyncio.Queue[ConfigFile] = asyncio.Queue()
        self.refusals: list[Exception] = []
        self.attempts: list[list[str]] = []  # the parts that hung after each
        watching = watch_config(
            read_config_file(path), self._take_over, self._attempted, poll_seconds=0.001, retry_seconds=0.001
        )
        self._task = asyncio.create_task(watching)

    async def _take_over(self, file: ConfigFile) -> None:
        if self.refusals:
            raise self.refusals.pop()
        await self.taken.put(file)

    def _attempted(self, hanging: Mapping[str, str]) -> None:
        self.attempts.append(list(hanging))

    async def next(self) -> ServingConfig:
        return (await asyncio.wait_for(self.taken.get(), 30)).config

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def text_with(batch: int, **extra: Any) -> str:
    return config_of(RESOURCE).model_copy(update={"batch_max_size": batch, **extra}).model_dump_json()


async def test_a_swapped_config_map_is_taken_over(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path / "config")
    watching = Watching(mounted.path)
    for batch in (3, 4):
        mounted.write(text_with(batch))
        assert (await watching.next()).batch_max_size == batch
    await watching.stop()


async def test_the_same_content_is_no_change_and_unknown_keys_are_none_either(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path / "config")
    watching = Watching(mounted.path)
    mounted.write(mounted.path.read_text())
    mounted.write(text_with(5).replace("{", '{"from_a_newer_operator": 1, ', 1))
    assert (await watching.next()).batch_max_size == 5
    assert watching.taken.empty()
    await watching.stop()


async def test_a_bad_file_is_logged_once_and_the_next_good_one_counts(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path / "config")
    watching = Watching(mounted.path)
    with structlog.testing.capture_logs() as lines:
        mounted.write("{")
        while len(watching.attempts) < 4:
            await asyncio.sleep(0)
        mounted.write(text_with(6))
        assert (await watching.next()).batch_max_size == 6
    assert [line["event"] for line in lines] == ["the new config is not in force, it is tried again"]
    assert "is not a valid ServingConfig" in lines[0]["file"]
    await watching.stop()


async def test_what_was_not_taken_over_whole_is_tried_until_it_is(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path / "config")
    watching = Watching(mounted.path)
    watching.refusals = [NotWhole({"cache": "the ledger is down"}), NotWhole({"cache": "down", "quality": "no disk"})]
    mounted.write(text_with(7))
    assert (await watching.next()).batch_max_size == 7
    while len(watching.attempts) < 3 or watching.attempts[-1]:
        await asyncio.sleep(0)
    assert watching.attempts[-3:] == [["cache", "quality"], ["cache"], []]
    assert watching.taken.empty()
    await watching.stop()


async def test_after_a_part_of_another_the_first_one_is_taken_over_again(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path / "config")
    first = mounted.path.read_text()
    watching = Watching(mounted.path)
    watching.refusals = [NotWhole({"cache": "the ledger is down"})] * 1000
    mounted.write(text_with(5))
    while len(watching.refusals) == 1000:
        await asyncio.sleep(0)
    mounted.write(first)
    watching.refusals = []
    assert (await watching.next()).batch_max_size == config_of(RESOURCE).batch_max_size
    await watching.stop()


async def test_a_change_between_the_start_and_the_first_look_is_seen(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path / "config")
    watching = Watching(mounted.path)
    mounted.write(text_with(9))  # the task has not run yet
    assert (await watching.next()).batch_max_size == 9
    await watching.stop()
