"""The workloads of a cache, and the fields of its resource that configure each."""

from __future__ import annotations

from dataclasses import dataclass

from diffcache_core.names import IMAGE_ANNOTATION

COMPONENT_LABEL = "app.kubernetes.io/component"
SERVING, INDEX, LEDGER = "serving", "index", "ledger"  # its values


@dataclass(frozen=True)
class Workload:
    """A workload whose pods are diagnosed, and the fields of the resource that configure it."""

    name: str  # of the StatefulSet
    block: str  # its block of the resource, such as `spec.serving`
    volume: str  # field of its volume, such as `spec.cache.store.volume`
    gpu: str = ""  # name of the GPU resource, if the pods want GPUs
    image_remedy: str = ""  # what to do about an image that cannot be pulled; empty: check the block's field `image`


def milvus_name(cache: str) -> str:
    return f"{cache}-milvus"


def redis_name(cache: str) -> str:
    return f"{cache}-redis"


def serving_workload(cache: str, gpu: str, pinned: str, chosen: str) -> Workload:
    """Returns the workload of the serving pods. `gpu`: name of the GPU resource; empty if no GPUs are wanted. `pinned`:
    spec.serving.image. `chosen`: the image that `kubectl diffcache upgrade` chose, until it has run."""
    return Workload(cache, "spec.serving", "spec.cache.store.volume", gpu, _image_remedy(cache, pinned, chosen))


def index_workload(cache: str) -> Workload:
    return _beside(milvus_name(cache), "spec.index.standalone")


def ledger_workload(cache: str) -> Workload:
    return _beside(redis_name(cache), "spec.cache.ledger.provisioned")


def _beside(name: str, block: str) -> Workload:
    return Workload(name, block, f"{block}.volume")


def _image_remedy(cache: str, pinned: str, chosen: str) -> str:
    if pinned:
        return "mend spec.serving.image, or remove it to go back to the image that ran before"
    if chosen:
        return (
            f"`kubectl diffcache upgrade {cache} --image IMAGE` chooses another, and removing the annotation "
            f"{IMAGE_ANNOTATION} goes back to the image that ran before"
        )
    return "mend servingImage of the operator's chart, or name another image in spec.serving.image"
