"""Prompts, bins, skips, pairs and chains: what is going to be measured."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcache_core.cache.resume import skip_to_k
from diffcache_serving.calibration.chains import ChainSetting, plan_chains
from diffcache_serving.calibration.pairs import Half, Universe, plan_units, split_concepts
from diffcache_serving.calibration.prompts import MIN_CONCEPTS, read_prompts
from diffcache_serving.calibration.settings import BINS, Band, CalibrationError, candidate_skips


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def build_universe(concepts: int = 60, wordings: int = 4) -> Universe:
    """Keys around two common directions: concepts are alike by some .5 to .9, wordings of one by more."""
    random = rng()
    centres = random.normal(size=(concepts, 16)) + 4 * np.eye(16)[random.integers(2, size=concepts)]
    keys = np.repeat(centres, wordings, axis=0) + 0.8 * random.normal(size=(concepts * wordings, 16))
    names = tuple(f"concept {i // wordings}" for i in range(len(keys)))
    return Universe(keys / np.linalg.norm(keys, axis=1, keepdims=True), names, tuple((i,) for i in range(len(keys))))


@given(st.integers(2, 1000))
def test_candidate_skips_have_distinct_steps_that_core_turns_back(steps: int) -> None:
    skips = candidate_skips(steps)
    assert skips
    assert len({skip.k for skip in skips}) == len(skips)
    assert all(skip_to_k(skip.percent, steps) == skip.k and 1 <= skip.k < steps for skip in skips)
    assert list(skips) == sorted(skips, key=lambda skip: skip.percent)


def test_candidate_skips_of_the_bundled_model() -> None:
    assert [(skip.percent, skip.k) for skip in candidate_skips(8)] == [(13, 1), (25, 2), (38, 3), (50, 4), (63, 5)]


@given(st.floats(0.4, 1.0000002))
def test_every_similarity_has_one_bin(similarity: float) -> None:
    assert sum(band.holds(similarity) for band in BINS) == 1


def test_no_concept_is_in_both_halves() -> None:
    universe = build_universe()
    units = plan_units(universe, 16, rng())
    seen: dict[Half, set[str]] = {Half.FIT: set(), Half.REPORT: set()}
    for unit in units:
        prompts = [unit.prompt, unit.random_parent, *(p.parent for p in unit.partners)]
        seen[unit.half] |= {universe.concepts[i] for i in prompts}
        assert universe.concepts[unit.random_parent] != universe.concepts[unit.prompt]
    assert seen[Half.FIT]
    assert seen[Half.REPORT]
    assert not seen[Half.FIT] & seen[Half.REPORT]
    sizes = Counter(split_concepts(universe.concepts, rng()).values())
    assert sizes[Half.FIT] == sizes[Half.REPORT]


def test_bins_are_filled_up_to_what_is_wanted_and_from_many_concepts() -> None:
    universe = build_universe()
    counts: Counter[tuple[Half, int]] = Counter()
    concepts: dict[tuple[Half, int], set[str]] = {}
    for unit in plan_units(universe, 16, rng()):
        for partner in unit.partners:
            assert partner.parent != unit.prompt
            (b,) = [b for b, band in enumerate(BINS) if band.holds(partner.similarity)]
            counts[unit.half, b] += 1
            concepts.setdefault((unit.half, b), set()).add(universe.concepts[partner.parent])
    assert max(counts.values()) == 8
    assert sum(count == 8 for count in counts.values()) >= 2 * len(BINS) - 1
    assert all(len(names) >= 4 for key, names in concepts.items() if counts[key] == 8)


def test_the_same_token_ids_are_no_pair() -> None:
    universe = build_universe(wordings=2)
    twins = tuple((i // 2,) for i in range(len(universe.ids)))
    for unit in plan_units(Universe(universe.keys, universe.concepts, twins), 8, rng()):
        assert all(twins[p.parent] != twins[unit.prompt] for p in unit.partners)


def test_plans_are_the_same_every_time() -> None:
    universe = build_universe()
    assert plan_units(universe, 8, rng()) == plan_units(universe, 8, rng())


def test_each_prompt_of_a_chain_is_similar_to_the_one_before() -> None:
    universe, band = build_universe(), Band(0.6, 0.8)
    chains = plan_chains(universe, ChainSetting(candidate_skips(8)[1], band), 5, 4, rng())
    assert len(chains) == 5
    for chain in chains:
        assert len(set(chain.prompts)) == 5
        keys = universe.keys[list(chain.prompts)]
        assert all(band.holds(float(s)) for s in (keys[1:] * keys[:-1]).sum(axis=1))


def test_a_band_without_prompts_gives_no_chain() -> None:
    setting = ChainSetting(candidate_skips(8)[1], Band(0.99999, 0.999999))
    assert plan_chains(build_universe(), setting, 5, 4, rng()) == []


def write(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]), encoding="utf-8")
    return path


def test_whole_prompts_are_used_as_they_are(tmp_path: Path) -> None:
    rows = [f"c{i % MIN_CONCEPTS}\ta photo of {i}" for i in range(2 * MIN_CONCEPTS)]
    found = read_prompts(write(tmp_path / "p.tsv", "# concept<TAB>prompt", rows), rng())
    assert [p.text for p in found.prompts] == [row.partition("\t")[2] for row in rows]


def test_tags_become_prompts_of_the_bundled_model(tmp_path: Path) -> None:
    rows = [f"c{i}\tred, round" for i in range(MIN_CONCEPTS)]
    found = read_prompts(write(tmp_path / "p.tsv", "# concept<TAB>tags", rows), rng())
    texts = {p.text for p in found.prompts if p.concept == "c3"}
    assert {"c3, noto style", "c3, flat style", "a c3, noto style"} < texts
    assert len(texts) == 6


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["apple\tan apple"], f"needs at least {MIN_CONCEPTS} concepts.*has 1"),
        (["an apple"], "line 2 has no tab: write concept<TAB>text"),
        (["apple\t"], "line 2 has an empty column"),
    ],
)
def test_a_bad_list_is_refused_with_the_line(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        read_prompts(write(tmp_path / "p.tsv", "# concept<TAB>prompt", rows), rng())
