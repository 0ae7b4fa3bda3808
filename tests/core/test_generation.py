"""What a request may say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diffcache_core.generation import (
    MAX_PROMPT_CHARACTERS,
    CacheMode,
    GenerationRequest,
    InvalidRequest,
    check_request,
)

GOOD = GenerationRequest(
    prompt="red apple, noto style",
    seed=1,
    seed_is_explicit=True,
    steps=8,
    guidance=3.0,
    width=64,
    height=64,
    request_id="r-1",
)


@pytest.mark.parametrize(
    "request_",
    [
        GOOD,
        replace(GOOD, prompt="日本のりんご\n🍎\ttab"),
        replace(GOOD, seed=2**63 - 1, steps=1000, guidance=0.0),
        replace(GOOD, width=2048, height=16, min_similarity=-1.0, max_skip_percent=0),
        replace(GOOD, prompt="x" * MAX_PROMPT_CHARACTERS),
    ],
)
def test_good_requests_pass(request_: GenerationRequest) -> None:
    check_request(request_, size_multiple=16)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (replace(GOOD, prompt=""), "prompt"),
        (replace(GOOD, prompt=" \n "), "prompt"),
        (replace(GOOD, prompt="x" * 100_000), "prompt"),
        (replace(GOOD, prompt="a\0b"), "prompt"),
        (replace(GOOD, prompt="a\ud800b"), "prompt"),
        (replace(GOOD, negative_prompt="\x07"), "negative_prompt"),
        (replace(GOOD, seed=-1), "seed"),
        (replace(GOOD, seed=2**63), "seed"),
        (replace(GOOD, steps=0), "steps"),
        (replace(GOOD, steps=10**6), "steps"),
        (replace(GOOD, guidance=float("nan")), "guidance"),
        (replace(GOOD, guidance=-1.0), "guidance"),
        (replace(GOOD, guidance=float("inf")), "guidance"),
        (replace(GOOD, width=0), "width"),
        (replace(GOOD, width=72), "width"),
        (replace(GOOD, height=4096), "height"),
        (replace(GOOD, min_similarity=1.5), "min_similarity"),
        (replace(GOOD, min_similarity=float("nan")), "min_similarity"),
        (replace(GOOD, max_skip_percent=101), "max_skip_percent"),
        (replace(GOOD, request_id="no spaces"), "request_id"),
        (replace(GOOD, request_id="x" * 129), "request_id"),
        (replace(GOOD, tenant="UPPER"), "x-diffcache-tenant"),
        (replace(GOOD, tenant=""), "x-diffcache-tenant"),
    ],
)
def test_a_bad_field_is_named(request_: GenerationRequest, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_request(request_, size_multiple=16)
    assert [v.field for v in caught.value.violations] == [field]


def test_every_wrong_field_is_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_request(replace(GOOD, prompt="", steps=0, width=1), size_multiple=16)
    assert [v.field for v in caught.value.violations] == ["prompt", "steps", "width"]


def test_a_wrong_size_comes_with_one_that_works() -> None:
    with pytest.raises(InvalidRequest, match="try 64"):
        check_request(replace(GOOD, width=66), size_multiple=16)


def test_modes_say_what_they_touch() -> None:
    assert {m: (m.reads, m.writes) for m in CacheMode} == {
        CacheMode.DEFAULT: (True, True),
        CacheMode.BYPASS: (False, False),
        CacheMode.REFRESH: (False, True),
        CacheMode.READ_ONLY: (True, False),
    }


def test_an_area_beyond_the_limit_is_told_with_a_size_that_fits() -> None:
    with pytest.raises(InvalidRequest, match="at most 16384 pixels here, is 256 x 128 = 32768: try 176 x 80"):
        check_request(replace(GOOD, width=256, height=128), size_multiple=16, max_pixels=16384)
    check_request(replace(GOOD, width=128, height=128), size_multiple=16, max_pixels=16384)
