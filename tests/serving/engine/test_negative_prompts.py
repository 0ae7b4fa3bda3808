"""Encodings of negative prompts: kept for whoever asked for them, and for nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from diffcache_serving.engine.families.stable_diffusion.model import NEGATIVE_PROMPTS_KEPT, StableDiffusion
from diffcache_serving.engine.loading import LoadedModel
from tests.serving.conftest import REQUEST
from tests.serving.pipeline import diffusion_of, pipe_of


class Encoder:
    """Counts what the model's text encoder is asked, prompts and negative prompts alike."""

    def __init__(self, model: LoadedModel) -> None:
        loaded = diffusion_of(model)
        self.diffusion = StableDiffusion(loaded.pipe, loaded.projection, loaded.scheduler)
        self.passes = 0

    def count(self, *_: object) -> None:
        self.passes += 1

    def passes_of(self, tenant: str, negative: str) -> int:
        before = self.passes
        with torch.inference_mode():
            self.diffusion.encode(replace(REQUEST, tenant=tenant, negative_prompt=negative))
        return self.passes - before


@pytest.fixture
def encoder(model: LoadedModel) -> Iterator[Encoder]:
    encoder = Encoder(model)
    hook = pipe_of(model).text_encoder.register_forward_hook(encoder.count)
    yield encoder
    hook.remove()


def test_what_one_tenant_excludes_saves_another_no_time(encoder: Encoder) -> None:
    assert encoder.passes_of("a", "secret project") == 2
    assert encoder.passes_of("a", "secret project") == 1
    assert encoder.passes_of("b", "secret project") == 2


def test_the_empty_negative_prompt_is_encoded_once_for_all(encoder: Encoder) -> None:
    assert encoder.passes_of("a", "") == 2
    assert encoder.passes_of("b", "") == 1


def test_only_so_many_are_kept_whatever_tenants_and_texts_there_are(encoder: Encoder) -> None:
    for i in range(NEGATIVE_PROMPTS_KEPT):
        encoder.passes_of(f"t{i % 7}", f"no {i}")
    assert encoder.passes_of("t0", "no 0") == 1
    encoder.passes_of("other", "no")
    assert encoder.passes_of("t1", "no 1") == 2
