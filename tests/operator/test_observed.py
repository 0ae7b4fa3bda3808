"""What the operator sees in objects."""

from __future__ import annotations

from diffcache_core.kubernetes.pods import Pod
from diffcache_operator.observed import made_by


def _pod(called: str, **owner: object) -> Pod:
    references = [{"controller": True} | owner] if owner else []
    metadata = {"name": called, "labels": {"diffcache.io/cache": "emoji"}, "ownerReferences": references}
    return Pod.model_validate({"metadata": metadata})


def test_only_the_stateful_sets_own_pods_count() -> None:
    """Anybody may give a pod our labels."""
    mine = _pod("emoji-0", kind="StatefulSet", name="emoji", uid="1")
    others = [
        _pod("emoji-lies"),
        _pod("emoji-job", kind="Job", name="emoji", uid="2"),
        _pod("emoji-milvus-0", kind="StatefulSet", name="emoji-milvus", uid="3"),
        _pod("emoji-user", kind="StatefulSet", name="emoji", uid="4", controller=False),
    ]
    assert made_by([mine, *others], "emoji") == (mine,)
