"""Whatever differs, separates."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import pytest

from diffcache_core.cache.space import Space, TrajectoryGrid, exact_digest

SPACE = Space(
    tenant="default",
    model="m",
    embedder="e",
    height=64,
    width=64,
    dtype="float32",
    guidance=3.0,
    negative_prompt=(1,),
    grid=TrajectoryGrid("s", 8),
)


def test_every_field_separates() -> None:
    other: dict[str, Any] = {
        "tenant": "acme",
        "model": "n",
        "embedder": "f",
        "height": 32,
        "width": 32,
        "dtype": "float16",
        "guidance": 3.5,
        "negative_prompt": (2,),
        "grid": None,
        "format_version": 0,
    }
    assert set(other) == {field.name for field in fields(Space)}
    digests = {replace(SPACE, **{name: value}).digest() for name, value in other.items()}
    assert SPACE.digest() not in digests
    assert len(digests) == len(other)
    assert replace(SPACE, grid=TrajectoryGrid("s", 9)).digest() != SPACE.digest()
    assert replace(SPACE, grid=TrajectoryGrid("t", 8)).digest() != SPACE.digest()


def test_equal_spaces_have_equal_digests_in_every_process() -> None:
    assert SPACE.digest() == replace(SPACE).digest()
    assert Space("", "m", "e", 64, 64, "float32", 3.0, ()).digest() == (
        "b93f8b3aaa66a7e0dc6c8324dffaea072470f2b818818e66bdcbaa17cdd363c9"
    )


@dataclass(frozen=True)
class LaterSpace(Space):
    adapter: str = ""


def test_a_field_of_a_later_version_leaves_the_digests_of_its_default() -> None:
    values = {field.name: getattr(SPACE, field.name) for field in fields(SPACE)}
    assert LaterSpace(**values).digest() == SPACE.digest()
    assert LaterSpace(**values, adapter="a").digest() != SPACE.digest()


GOLDEN = {
    SPACE: "f228caa3136c09e28fbe7eeb690bb1d1a6a8c958ba2eb435e4294ffcfdda61aa",
    replace(SPACE, grid=None): "71ed1409d48976d7d5bdcf8f1f74d6315be7e522d238c6c8d633f688eec31e76",
    replace(
        SPACE, tenant="", guidance=1.0, negative_prompt=()
    ): "c7c3be5501025d7a65ee26901f1d722f2dffb61139abafd02f18e45f470db0b5",
}


@pytest.mark.parametrize("space", GOLDEN)
def test_the_digests_of_stored_entries_stay(space: Space) -> None:
    assert space.digest() == GOLDEN[space]


def test_whatever_differs_makes_another_request() -> None:
    base = ("space", (1, 2), 7, 8, "DDIM")
    others = [
        ("b", (1, 2), 7, 8, "DDIM"),
        ("space", (1,), 7, 8, "DDIM"),
        ("space", (1, 2), 8, 8, "DDIM"),
        ("space", (1, 2), 7, 9, "DDIM"),
        ("space", (1, 2), 7, 8, "Euler"),
    ]
    assert exact_digest(*base) not in {exact_digest(*other) for other in others}
