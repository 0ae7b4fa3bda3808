"""One contract, both ledgers: what they remember, and that they evict what the policy's definition says."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffcache_core.cache.budget import Budget
from diffcache_core.cache.policies import (
    CREDIT_DECAY,
    FIRST_PRIOR_STEPS,
    LCBFU,
    PRIOR_CREDITS,
    HitStatistics,
    PolicyRecord,
)
from diffcache_core.cache.states import StateKind
from diffcache_serving.cache.ledger import Ledger, Target, Totals
from diffcache_serving.cache.ledger_redis import RedisLedger
from diffcache_serving.cache.ledger_sqlite import SqliteLedger
from diffcache_serving.cache.redis_client import RedisAccess
from tests.serving.cache.entries import KEY, entry, trajectory
from tests.serving.cache.redis_server import RedisServer

Reopen = Callable[[], Awaitable[Ledger]]
SHARED = pytest.param("redis", marks=pytest.mark.shared)


@pytest.fixture(params=["sqlite", SHARED])
async def reopen(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    """Opens one and the same ledger, as another process would."""
    opened: list[Ledger] = []
    prefix = uuid.uuid4().hex

    async def open_it() -> Ledger:
        if request.param == "sqlite":
            opened.append(await SqliteLedger.open(tmp_path / "ledger.db", LCBFU()))
        else:
            server: RedisServer = request.getfixturevalue("redis_server")
            opened.append(await RedisLedger.open(RedisAccess(server.address), prefix))
        return opened[-1]

    yield open_it
    for ledger in opened:
        await ledger.close()


@pytest.fixture
async def ledger(reopen: Reopen) -> Ledger:
    return await reopen()


async def test_an_entry_comes_back_as_it_was(ledger: Ledger, reopen: Reopen) -> None:
    kept = trajectory("a", (2, 4))
    await ledger.insert(kept, KEY)
    again = await reopen()
    for opened in (ledger, again):
        found = (await opened.entries(["a", "unknown"]))["a"]
        assert replace(found, states=()) == replace(kept, states=())
        assert [(s.kind, s.k) for s in found.states] == [
            (StateKind.CLEAN, 0),
            (StateKind.TRAJECTORY, 2),
            (StateKind.TRAJECTORY, 4),
        ]
        exact = await opened.find_exact("exact-a")
        assert exact is not None
        assert exact.id == "a"
        assert await opened.find_exact("exact-b") is None
        (row,) = await opened.keys(["a", "unknown"])
        assert (row.entry_id, row.space, row.key.tolist()) == ("a", "space", KEY.tolist())
        assert await opened.totals() == Totals(1, 3, 3 * 4096)
    assert again.id == ledger.id != ""


async def test_what_the_policy_remembers(ledger: Ledger) -> None:
    assert await ledger.policy_record() == PolicyRecord()
    await ledger.insert(entry("a"), KEY)
    await ledger.record_hit("a-0", 4, 3.0)
    await ledger.record_hit("a-0", 2, 1.5)
    score = (await ledger.entries(["a"]))["a"].states[0].score
    await ledger.reserve(0, 1, Budget(2**20, 1))  # evicts it
    assert await ledger.policy_record() == PolicyRecord(score, HitStatistics(2, 4.5), {4: 1, 2: 1})


async def test_the_same_request_again_replaces_the_older_entry(ledger: Ledger) -> None:
    await ledger.insert(entry("a"), KEY)
    dropped = (await ledger.insert(entry("b", exact="exact-a"), KEY)).replaced
    assert (dropped.entries, [s.id for s in dropped.states]) == (("a",), ["a-0"])
    assert await ledger.totals() == Totals(1, 1, 4096)


async def test_an_entry_lives_as_long_as_one_of_its_states(ledger: Ledger) -> None:
    await ledger.insert(trajectory("a", (2,)), KEY)
    assert (await ledger.drop_states(["a-2"])).entries == ()
    assert (await ledger.indexed_ids(StateKind.TRAJECTORY)).mine == set()
    assert (await ledger.indexed_ids(StateKind.CLEAN)).mine == {"a"}
    assert (await ledger.drop_states(["a-2", "a-0"])).entries == ("a",)
    assert await ledger.totals() == Totals()


async def test_both_budgets_hold(ledger: Ledger) -> None:
    for name in "abcd":
        await ledger.reserve(8192, 1, Budget(bytes=20_000, entries=10))
        await ledger.insert(entry(name, 8192), KEY)
    assert await ledger.totals() == Totals(2, 2, 16_384)
    await ledger.reserve(0, 1, Budget(bytes=10**9, entries=2))
    assert (await ledger.totals()).entries == 1
    assert (await ledger.reserve(10**9, 1, Budget(bytes=1, entries=1))).entries  # empties it, and ends
    assert await ledger.totals() == Totals()


@pytest.mark.parametrize(
    ("target", "left"),
    [
        (Target(prompt="prompt a"), {"b", "c"}),
        (Target(prompt="prompt"), {"a", "b", "c"}),
        (Target(tenant="acme"), {"a", "b"}),
        (Target(model="emoji"), {"b"}),
        (Target(model="f00d"), {"b"}),
        (Target(model="emoji@f00d"), {"b"}),
        (Target(model="emo"), {"a", "b", "c"}),
        (Target(entry_id="b"), {"a", "c"}),
        (Target(prompt="prompt a", tenant="acme"), {"a", "b", "c"}),
        (Target(), set()),
    ],
)
async def test_purges_mean_what_they_name(target: Target, left: set[str], ledger: Ledger) -> None:
    for e in (entry("a"), entry("b", model="other@beef"), entry("c", tenant="acme")):
        await ledger.insert(e, KEY)
    await ledger.drop_entries(target)
    assert set(await ledger.entries(["a", "b", "c"])) == left


async def test_listing_is_newest_first_and_counts_all(ledger: Ledger) -> None:
    for i, name in enumerate("abcd"):
        await ledger.insert(entry(name, created=float(i)), KEY)
    found, total = await ledger.list_entries(Target(), 2)
    assert ([e.id for e in found], total) == (["d", "c"], 4)
    found, total = await ledger.list_entries(Target(prompt_contains="PROMPT B"), 9)
    assert ([e.id for e in found], total) == (["b"], 1)


# ---- families --------------------------------------------------------------------------------------------------------


async def test_another_familys_keys_stay_out_of_the_index(ledger: Ledger) -> None:
    await ledger.adopt("one", "emoji@f00d", now=0.0)
    await ledger.insert(entry("a"), KEY)
    await ledger.adopt("two", "emoji@f00d", now=0.0)
    await ledger.insert(entry("b"), KEY)
    ids = await ledger.indexed_ids(StateKind.CLEAN)
    assert (ids.mine, ids.others) == ({"b"}, {"a"})


async def test_what_was_retired_is_dropped_by_the_time_of_the_first_start_that_did_not_fit(ledger: Ledger) -> None:
    await ledger.adopt("one", "emoji@f00d", now=0.0)
    await ledger.insert(entry("a"), KEY)
    assert await ledger.adopt("two", "emoji@f00d", now=10.0) == 1
    await ledger.insert(entry("b"), KEY)
    assert await ledger.adopt("three", "emoji@f00d", now=20.0) == 2
    await ledger.insert(entry("c"), KEY)
    assert (await ledger.drop_retired(before=9.0, limit=99)).entries == ()
    assert (await ledger.drop_retired(before=10.0, limit=99)).entries == ("a",)
    assert (await ledger.drop_retired(before=20.0, limit=99)).entries == ("b",)
    assert (await ledger.drop_retired(before=1e9, limit=99)).entries == ()


async def test_retired_entries_are_dropped_a_piece_at_a_time(ledger: Ledger) -> None:
    await ledger.adopt("one", "emoji@f00d", now=0.0)
    for name in "abc":
        await ledger.insert(entry(name), KEY)
    await ledger.adopt("two", "emoji@f00d", now=0.0)
    assert [len((await ledger.drop_retired(before=0.0, limit=2)).entries) for _ in range(3)] == [2, 1, 0]


async def test_who_comes_back_is_as_before_and_its_time_begins_anew(ledger: Ledger) -> None:
    await ledger.adopt("one", "emoji@f00d", now=0.0)
    await ledger.insert(entry("a"), KEY)
    (before,) = (await ledger.entries(["a"]))["a"].states
    await ledger.adopt("two", "emoji@f00d", now=10.0)
    assert await ledger.adopt("one", "emoji@f00d", now=20.0) == 0
    assert (await ledger.entries(["a"]))["a"].states == (before,)
    await ledger.adopt("two", "emoji@f00d", now=30.0)
    assert (await ledger.drop_retired(before=29.0, limit=99)).entries == ()


async def test_the_retired_are_evicted_first(ledger: Ledger) -> None:
    await ledger.adopt("one", "emoji@f00d", now=0.0)
    await ledger.insert(entry("a"), KEY)
    for _ in range(9):
        await ledger.record_hit((await ledger.entries(["a"]))["a"].states[0].id, 4, 4.0)
    await ledger.adopt("two", "emoji@f00d", now=0.0)
    await ledger.insert(entry("b"), KEY)
    assert (await ledger.reserve(0, 1, Budget(2**20, 2))).entries == ("a",)


# ---- against an O(n) reference ---------------------------------------------------------------------------------------


@dataclass
class Reference:
    """LCBFU written out from its definition, with a list and `min`."""

    budget: int
    age: float = 0.0
    hits: int = 0
    credits: float = 0.0
    clock: int = 0
    states: dict[str, list[float]] = field(default_factory=dict)  # id: [bytes, b, H, inserted]

    def insert(self, name: str, size: int) -> list[str]:
        evicted = []
        while self.states and sum(s[0] for s in self.states.values()) + size > self.budget:
            lowest = min(self.states, key=lambda i: (self.states[i][2], self.states[i][3]))
            self.age = max(self.age, self.states.pop(lowest)[2])
            evicted.append(lowest)
        mean = self.credits / self.hits if self.hits else FIRST_PRIOR_STEPS
        self.clock += 1
        self.states[name] = [size, PRIOR_CREDITS * mean, self.age + PRIOR_CREDITS * mean / size, self.clock]
        return evicted

    def hit(self, name: str, credit: float) -> None:
        if name in self.states:
            state = self.states[name]
            state[1] = CREDIT_DECAY * state[1] + credit
            state[2] = self.age + state[1] / state[0]
            self.hits += 1
            self.clock += 1
            self.credits += credit


operations = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.integers(1, 4)),
        st.tuples(st.just("hit"), st.tuples(st.integers(0, 30), st.floats(0.25, 8))),
    ),
    max_size=60,
)


async def play(ledger: Ledger, operations: list[tuple[str, Any]]) -> None:
    budget = Budget(bytes=10 * 4096, entries=10**6)
    reference = Reference(10 * 4096)
    for i, (what, value) in enumerate(operations):
        if what == "insert":
            dropped = await ledger.reserve(value * 4096, 1, budget)
            await ledger.insert(entry(f"e{i}", value * 4096), KEY, budget)
            assert [s.entry_id for s in dropped.states] == reference.insert(f"e{i}", value * 4096)
        else:
            number, credit = value
            await ledger.record_hit(f"e{number}-0", 3, credit)
            reference.hit(f"e{number}", credit)
        listed = (await ledger.list_entries(Target(), 1000))[0]
        assert {s.entry_id: s.score for e in listed for s in e.states} == {
            name: state[2] for name, state in reference.states.items()
        }
        assert (await ledger.totals()).bytes <= budget.bytes
    await ledger.close()


@given(operations)
@settings(max_examples=40, deadline=None)
def test_lcbfu_evicts_what_its_definition_says(operations: list[tuple[str, Any]]) -> None:
    async def run() -> None:
        await play(await SqliteLedger.open(None, LCBFU()), operations)

    asyncio.run(run())


@pytest.mark.shared
@given(operations)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_so_does_lcbfu_in_redis_to_the_last_bit(redis_server: RedisServer, operations: list[tuple[str, Any]]) -> None:
    async def run() -> None:
        await play(await RedisLedger.open(RedisAccess(redis_server.address), uuid.uuid4().hex), operations)

    asyncio.run(run())
