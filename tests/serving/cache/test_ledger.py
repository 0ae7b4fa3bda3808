"""The ledger: what it remembers, and that it evicts what the policy's definition says, against an O(n) reference."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffcache_core.policies import CREDIT_DECAY, FIRST_PRIOR_STEPS, LCBFU, POLICIES, PRIOR_CREDITS
from diffcache_core.states import Entry, StateKind, StateRecord
from diffcache_serving.cache.ledger import Budget, Ledger, LedgerError, Target, Totals

KEY = np.array([0.6, 0.8], np.float32)


def entry(name: str, size: int = 4096, **changes: object) -> Entry:
    state = StateRecord(f"{name}-0", name, StateKind.CLEAN, 0, size, "sum")
    made = Entry(
        id=name,
        space="space",
        exact=f"exact-{name}",
        prompt_digest="p",
        prompt=f"prompt {name}",
        tenant="default",
        model="emoji@f00d",
        seed=1,
        steps=8,
        skipped=0,
        similarity=1.0,
        depth=0,
        parent="",
        created=1.0,
        states=(state,),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def trajectory(name: str, ks: tuple[int, ...]) -> Entry:
    states = tuple(StateRecord(f"{name}-{k}", name, StateKind.TRAJECTORY, k, 4096, "sum") for k in ks)
    return entry(name, states=(*states, StateRecord(f"{name}-0", name, StateKind.CLEAN, 0, 4096, "sum")))


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    opened = await Ledger.open(tmp_path / "ledger.db", LCBFU())
    yield opened
    await opened.close()


async def test_an_entry_comes_back_as_it_was(ledger: Ledger, tmp_path: Path) -> None:
    kept = trajectory("a", (2, 4))
    await ledger.insert(kept, KEY)
    for opened in (ledger, await Ledger.open(tmp_path / "ledger.db", LCBFU())):
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
        (row,) = await opened.keys(StateKind.TRAJECTORY)
        assert (row.entry_id, row.space, row.key.tolist()) == ("a", "space", KEY.tolist())
        assert await opened.totals() == Totals(1, 3, 3 * 4096)
        if opened is not ledger:
            assert opened.id == ledger.id
            await opened.close()


async def test_the_same_request_again_replaces_the_older_entry(ledger: Ledger) -> None:
    await ledger.insert(entry("a"), KEY)
    dropped = await ledger.insert(entry("b", exact="exact-a"), KEY)
    assert (dropped.entries, [s.id for s in dropped.states]) == (("a",), ["a-0"])
    assert await ledger.totals() == Totals(1, 1, 4096)


async def test_an_entry_lives_as_long_as_one_of_its_states(ledger: Ledger) -> None:
    await ledger.insert(trajectory("a", (2,)), KEY)
    assert (await ledger.drop_states(["a-2"])).entries == ()
    assert await ledger.keys(StateKind.TRAJECTORY) == []
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


async def test_a_newer_format_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="format 99"):
        await Ledger.open(path, LCBFU())
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_what_is_no_ledger_is_set_aside(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(content)
    told: list[str] = []
    ledger = await Ledger.open(path, LCBFU(), told.append)
    assert len(told) == 1
    assert "a new ledger begins" in told[0]
    (aside,) = tmp_path.glob("ledger.db.aside-*")
    assert aside.read_bytes() == content
    await ledger.insert(entry("a"), KEY)
    await ledger.close()


async def test_a_ledger_in_use_is_not_taken_for_damaged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    first = await Ledger.open(path, LCBFU())
    await first.insert(entry("a"), KEY)
    await first.close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerError, match="end whatever uses it"):
        await Ledger.open(path, LCBFU())
    holder.close()
    again = await Ledger.open(path, LCBFU())
    assert set(await again.entries(["a"])) == {"a"}
    await again.close()


# ---- families --------------------------------------------------------------------------------------------------------


async def test_another_familys_keys_stay_out_of_the_index(ledger: Ledger) -> None:
    await ledger.adopt("one", "emoji@f00d", now=0.0)
    await ledger.insert(entry("a"), KEY)
    await ledger.adopt("two", "emoji@f00d", now=0.0)
    await ledger.insert(entry("b"), KEY)
    assert [row.entry_id for row in await ledger.keys(StateKind.CLEAN)] == ["b"]


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
    assert (await ledger.entries(["a"]))["a"].states[0].score < 0
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


async def test_a_ledger_from_before_families_is_upgraded_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    first = await Ledger.open(path, LCBFU())
    await first.insert(entry("a"), KEY)
    await first.insert(entry("b", model="other@beef"), KEY)
    await first.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in (
            "DROP INDEX entries_by_family",
            "DROP TABLE retired",
            "ALTER TABLE entries DROP COLUMN family",
        ):
            db.execute(statement)
    told: list[str] = []
    ledger = await Ledger.open(path, LCBFU(), told.append)
    assert told == []
    assert await ledger.adopt("mine", "emoji@f00d", now=5.0) == 1
    assert [row.entry_id for row in await ledger.keys(StateKind.CLEAN)] == ["a"]
    assert (await ledger.drop_retired(before=5.0, limit=9)).entries == ("b",)
    await ledger.close()


async def test_a_failed_write_leaves_nothing(ledger: Ledger) -> None:
    with pytest.raises(sqlite3.Error):
        await ledger.insert(entry("a", states=(entry("a").states[0],) * 2), KEY)  # one state id twice
    assert await ledger.totals() == Totals()
    assert await ledger.entries(["a"]) == {}


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


@given(operations)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_lcbfu_evicts_what_its_definition_says(operations: list[tuple[str, object]]) -> None:
    async def play() -> None:
        ledger = await Ledger.open(None, LCBFU())
        budget = Budget(bytes=10 * 4096, entries=10**6)
        reference = Reference(budget.bytes)
        for i, (what, value) in enumerate(operations):
            if what == "insert":
                assert isinstance(value, int)
                dropped = await ledger.reserve(value * 4096, 1, budget)
                await ledger.insert(entry(f"e{i}", value * 4096), KEY)
                assert [s.entry_id for s in dropped.states] == reference.insert(f"e{i}", value * 4096)
            else:
                assert isinstance(value, tuple)
                number, credit = value
                await ledger.record_hit(f"e{number}-0", 3, credit)
                reference.hit(f"e{number}", credit)
            assert {e.id for e in (await ledger.list_entries(Target(), 1000))[0]} == set(reference.states)
            assert (await ledger.totals()).bytes <= budget.bytes
        await ledger.close()

    asyncio.run(play())


async def test_other_policies_order_by_their_own_scores() -> None:
    """Three entries, the middle one hit twice, the first once and last: who goes first?"""
    first_out = {}
    for name, policy in POLICIES.items():
        ledger = await Ledger.open(None, policy)
        for e in "abc":
            await ledger.insert(entry(e), KEY)
        for hit in ("b", "b", "a"):
            await ledger.record_hit(f"{hit}-0", 3, 3.0)
        dropped = await ledger.reserve(4096, 1, Budget(3 * 4096, 100))
        first_out[name] = dropped.entries[0]
        await ledger.close()
    assert first_out == {"LCBFU": "c", "LCBFUClassic": "c", "LRU": "c", "LFU": "c", "FIFO": "a"}
