"""Which image runs: what runs stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diffcache_core.status import DiffusionCacheStatus, IndexStatus, LedgerStatus, ServingStatus
from diffcache_operator.desired.children import desired_children
from diffcache_operator.desired.metadata import JSON
from diffcache_operator.images import milvus_image, redis_image, serving_image
from tests.operator.resources import IMAGES, cache

RUNNING = desired_children(cache(), replace(IMAGES, serving="running:1"))[-1]
RECORDED = DiffusionCacheStatus(serving=ServingStatus(image="recorded:1"))
NEW = DiffusionCacheStatus()
UPGRADE = {"diffcache.io/serving-image": "chosen:1"}
FOLLOWED = DiffusionCacheStatus(serving=ServingStatus(image="later:1", chosen="chosen:1"))
FOREIGN = RUNNING | {"metadata": RUNNING["metadata"] | {"labels": {}, "ownerReferences": []}}


@pytest.mark.parametrize(
    ("spec", "annotations", "status", "live", "image"),
    [
        ("", {}, NEW, None, "default:2"),
        ("", {}, NEW, RUNNING, "running:1"),  # stopped before the first status was written, and started anew
        ("", {}, RECORDED, RUNNING, "recorded:1"),
        ("", UPGRADE, RECORDED, RUNNING, "chosen:1"),
        ("spec:1", UPGRADE, RECORDED, RUNNING, "spec:1"),
        ("", UPGRADE, FOLLOWED, RUNNING, "later:1"),  # a choice of once does not come back
        ("", {}, NEW, FOREIGN, "default:2"),  # somebody else's StatefulSet of this name
    ],
)
def test_the_image_that_runs(
    spec: str, annotations: dict[str, str], status: DiffusionCacheStatus, live: JSON | None, image: str
) -> None:
    resource = cache(annotations=annotations, serving={"image": spec} if spec else {})
    assert serving_image(resource, status, live, "default:2") == image


def test_the_image_of_milvus() -> None:
    named = cache(index={"type": "Standalone", "standalone": {"image": "mine:1"}})
    unnamed = cache(index={"type": "Standalone", "standalone": {}})
    recorded = DiffusionCacheStatus(index=IndexStatus(image="recorded:1"))
    assert milvus_image(named, recorded, RUNNING, "default:2") == "mine:1"
    assert milvus_image(unnamed, recorded, None, "default:2") == "recorded:1"
    assert milvus_image(unnamed, NEW, RUNNING, "default:2") == "running:1"
    assert milvus_image(unnamed, NEW, None, "default:2") == "default:2"
    assert milvus_image(cache(), NEW, None, "default:2") == ""


def test_the_image_of_redis() -> None:
    named = cache(cache={"ledger": {"type": "Provisioned", "provisioned": {"image": "mine:1"}}})
    unnamed = cache(cache={"ledger": {"type": "Provisioned", "provisioned": {}}})
    recorded = DiffusionCacheStatus(ledger=LedgerStatus(image="recorded:1"))
    assert redis_image(named, recorded, RUNNING, "default:2") == "mine:1"
    assert redis_image(unnamed, recorded, None, "default:2") == "recorded:1"
    assert redis_image(unnamed, NEW, RUNNING, "default:2") == "running:1"
    assert redis_image(unnamed, NEW, None, "default:2") == "default:2"
    assert redis_image(cache(), NEW, None, "default:2") == ""
