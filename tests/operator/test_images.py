"""Which image runs: what runs stays, and what never ran leaves nothing behind."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from diffcache_core.resource.spec import DiffusionCache
from diffcache_core.resource.status import DiffusionCacheStatus
from diffcache_operator.desired.children import desired_children
from diffcache_operator.images import Images, images_in_use, new_choice
from diffcache_operator.metadata import JSON
from diffcache_operator.observed import Observed
from diffcache_operator.status import Facts, make_status
from tests.operator.resources import IMAGES, as_pods, cache

NOW = "2026-11-24T10:00:00Z"
OTHERS: dict[str, Any] = {
    "index": {"type": "Standalone", "standalone": {}},
    "cache": {"ledger": {"type": "Provisioned", "provisioned": {}}},
}
READY = {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
LOADING = {"containerStatuses": [{"name": "serving", "state": {"running": {}}}]}
UNPULLED = {
    "containerStatuses": [{"name": "serving", "image": "x", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]
}


@dataclass
class World:
    """A resource, what is there of it, and an operator that looks at both."""

    resource: DiffusionCache = field(default_factory=lambda: cache(**OTHERS))
    defaults: Images = IMAGES
    status: DiffusionCacheStatus = field(default_factory=DiffusionCacheStatus)
    children: dict[tuple[str, str], JSON | None] = field(default_factory=dict)
    state: JSON = field(default_factory=lambda: copy.deepcopy(LOADING))
    generation: int = 1

    def look(self) -> Images:
        """One reconcile: pods are of the template that was applied last, in `state`."""
        document = self.resource.model_dump(mode="json", by_alias=True, exclude_none=True)
        document["metadata"]["generation"] = self.generation
        self.resource = DiffusionCache.model_validate(document)
        images = images_in_use(self.resource, self.status, self._observed(), self.defaults)
        for child in desired_children(self.resource, images):
            if child["kind"] == "StatefulSet":
                child["metadata"]["generation"] = 1
                child["status"] = {"observedGeneration": 1, "updateRevision": "one"}
                self.children["StatefulSet", child["metadata"]["name"]] = child
        return images

    def tell(self) -> None:
        self.status = make_status(Facts(self.resource, self._observed()), self.status, NOW)

    def change(self, serving: str = "", milvus: str = "", redis: str = "", chosen: str = "") -> None:
        """The user names these images, and no others any more."""
        self.generation += 1
        self.resource = cache(
            annotations={"diffcache.io/serving-image": chosen} if chosen else {},
            serving={"image": serving} if serving else {},
            index={"type": "Standalone", "standalone": {"image": milvus} if milvus else {}},
            cache={"ledger": {"type": "Provisioned", "provisioned": {"image": redis} if redis else {}}},
        )

    def run(self, state: JSON) -> Images:
        images = self.look()
        self.state = state
        self.tell()
        return images

    def _observed(self) -> Observed:
        pod = {"metadata": {"name": "emoji-0", "uid": "p", "labels": {"controller-revision-hash": "one"}}}
        there = as_pods(pod | {"status": self.state}) if self.children else ()
        return Observed(self.children, pods=there, index_pods=there, ledger_pods=there)


BAD = Images("serving:oops", "milvus:oops", "redis:oops")


def bad(world: World) -> None:
    world.change("serving:oops", "milvus:oops", "redis:oops")


@pytest.mark.parametrize("state", [UNPULLED, LOADING], ids=["cannot be pulled", "runs and serves nothing"])
def test_a_bad_image_that_is_taken_back_leaves_nothing(state: JSON) -> None:
    world = World()
    world.run(READY)
    bad(world)
    assert world.run(state) == BAD
    assert world.run(state) == BAD
    assert (world.status.serving.image, world.status.index.image, world.status.ledger.image) == (
        "serving:1",
        "milvus:1",
        "redis:1",
    )
    world.change()
    assert world.run(state) == IMAGES


@pytest.mark.parametrize("state", [UNPULLED, LOADING], ids=["cannot be pulled", "runs and serves nothing"])
def test_a_bad_image_of_the_beginning_gives_way_to_the_default(state: JSON) -> None:
    world = World()
    bad(world)
    world.run(state)
    assert world.run(state) == BAD
    world.change()
    assert world.run(state) == IMAGES


def test_an_image_that_has_run_stays_when_the_spec_names_it_no_more() -> None:
    world = World()
    world.change("serving:mine")
    world.run(READY)
    world.change()
    assert world.run(READY).serving == "serving:mine"


@pytest.mark.parametrize("state", [READY, LOADING], ids=["ready", "still loading"])
def test_an_operator_with_another_default_restarts_nothing(state: JSON) -> None:
    world = World()
    world.run(state)
    world.defaults = Images("serving:2", "milvus:2", "redis:2")
    assert world.run(state) == IMAGES


def test_nor_does_one_whose_status_was_lost() -> None:
    world = World()
    world.run(READY)
    world.defaults = Images("serving:2", "milvus:2", "redis:2")
    world.status = DiffusionCacheStatus()
    assert world.run(READY) == IMAGES


def test_a_default_that_nobody_can_pull_gives_way_to_the_next_one() -> None:
    """A wrong value of the chart is mended in the chart."""
    world = World(defaults=BAD)
    world.run(UNPULLED)
    world.defaults = IMAGES
    assert world.run(UNPULLED) == IMAGES


def test_somebody_elses_workload_of_the_name_says_nothing() -> None:
    world = World()
    world.run(READY)
    world.defaults = Images("serving:2", "milvus:2", "redis:2")
    world.status = DiffusionCacheStatus()
    for child in world.children.values():
        assert child is not None
        child["metadata"] |= {"labels": {}, "ownerReferences": []}
    assert world.look() == world.defaults


def test_a_choice_holds_until_it_has_run_and_does_not_come_back() -> None:
    world = World()
    world.run(READY)
    world.change(chosen="serving:2")
    assert world.run(UNPULLED).serving == "serving:2"
    assert world.run(UNPULLED).serving == "serving:2"
    assert world.status.serving.chosen == ""
    assert world.run(READY).serving == "serving:2"
    assert (world.status.serving.chosen, world.status.serving.image) == ("serving:2", "serving:2")
    world.change(serving="serving:3", chosen="serving:2")
    world.run(READY)
    world.change(chosen="serving:2")
    assert world.run(READY).serving == "serving:3"


def test_a_bad_choice_is_taken_back() -> None:
    world = World()
    world.run(READY)
    world.change(chosen="serving:oops")
    assert world.run(UNPULLED).serving == "serving:oops"
    assert new_choice(world.resource, world.status) == "serving:oops"
    world.change()
    assert world.run(UNPULLED).serving == "serving:1"


def test_a_cache_without_them_has_no_image_of_milvus_or_redis() -> None:
    images = images_in_use(cache(), DiffusionCacheStatus(), Observed({}), replace(IMAGES, serving="serving:2"))
    assert images == Images("serving:2", "", "")
