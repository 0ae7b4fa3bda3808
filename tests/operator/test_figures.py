"""What pods export becomes the figures of a status."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest

from diffcache_core.cache.resume import Level, Levels
from diffcache_core.generation import Result
from diffcache_operator.figures import add, parse
from diffcache_serving.metrics import PHASES, Metrics

POD = """\
# TYPE diffcache_requests_total counter
diffcache_requests_total{model="emoji",result="exact"} 1.0
diffcache_requests_total{model="emoji",result="approximate"} 5.0
diffcache_requests_total{model="emoji",result="miss"} 2.0
diffcache_requests_total{model="emoji",result="bypass"} 9.0
diffcache_requests_total{model="emoji",result="error"} 1.0
diffcache_steps_total 80.0
diffcache_steps_skipped_total 20.0
diffcache_entries 7.0
diffcache_cache_bytes 1.024e+06
diffcache_index_up 1.0
diffcache_ledger_up 1.0
diffcache_store_up 0.0
diffcache_states_undeleted 2.0
diffcache_config_info{revision="0123456789ab"} 1.0
diffcache_config_pending{part="file"} 0.0
diffcache_config_pending{part="cache"} 1.0
diffcache_config_pending{part="\\x1b[2Jwords of a stranger"} 1.0
"""


def test_figures_of_pods_add_up() -> None:
    one = parse(POD)
    assert (one.steps_saved_ratio, one.hit_ratio, one.entries, one.index_up) == (0.25, 0.75, 7, True)
    both = add([one, parse(POD.replace("index_up 1.0", "index_up 0.0"))])
    assert (both.steps, both.hit_ratio) == (160, 0.75)
    assert (both.index_up, both.ledger_up, both.store_up) == (False, True, False)
    assert both.undeleted == 4  # each pod has its own list
    assert (both.entries, both.bytes) == (7, 1_024_000)  # of the one cache that they share
    assert both.config_revisions == {"0123456789ab"}
    assert one.config_pending == both.config_pending == {"cache"}
    empty = parse("")
    assert (empty.steps_saved_ratio, empty.hit_ratio) == (None, None)
    assert (empty.index_up, empty.ledger_up, empty.store_up) == (None, None, None)


def test_the_figures_are_those_that_a_serving_process_exports() -> None:
    metrics = Metrics("emoji")
    for result, skipped in ((Result.APPROXIMATE, 2), (Result.MISS, 0), (Result.BYPASS, 0)):
        metrics.answered(result, dict.fromkeys(PHASES, 0.1), 1.0, 8, skipped)
    metrics.entries.set(3)
    figures = parse(generate_latest(metrics.registry).decode())
    assert (figures.steps, figures.steps_skipped, figures.hits, figures.look_ups) == (24, 2, 1, 2)
    assert figures.entries == 3


def test_what_the_tuner_asks_of_the_pods() -> None:
    """Which decision each follows, and the levels that are in force: a model's own are nowhere else to be read."""
    metrics = Metrics("emoji")
    metrics.tuning_revision.set(3)
    metrics.levels_in_force(Levels((Level(20, 0.8), Level(40, 1.01))))
    one = parse(generate_latest(metrics.registry).decode())
    assert (one.tuning_revisions, one.levels) == ((3,), frozenset({(Level(20, 0.8), Level(40, 1.01))}))
    bare = parse("diffcache_tuning_revision 2\n")
    both = add([one, bare, parse("")])  # the last one is of an old image
    assert (both.tuning_revisions, len(both.levels)) == ((3, 2), 2)
    for levels in (
        '{skip="0"} 0.5',
        '{skip="x"} 0.5',
        '{skip="20"} 3',
        '{skip="20"} 0.9\ndiffcache_level_similarity{skip="30"} 0.8',
    ):
        with pytest.raises(ValueError, match=r".+"):
            parse(f"diffcache_tuning_revision 1\ndiffcache_level_similarity{levels}\n")


@pytest.mark.parametrize("text", ["<html>", "diffcache_steps_total NaN\n", "diffcache_entries +Inf\n"])
def test_a_pod_may_answer_anything(text: str) -> None:
    try:
        figures = parse(text)
    except ValueError:
        return  # and the scrape takes it for no answer
    assert (figures.steps_saved_ratio, figures.entries) == (None, 0)
