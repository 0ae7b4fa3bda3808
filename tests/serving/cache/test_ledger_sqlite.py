"""The ledger of one process: its file, and the policies it can order by."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from diffcache_core.cache.budget import Budget
from diffcache_core.cache.policies import LCBFU, POLICIES
from diffcache_core.cache.states import StateKind
from diffcache_serving.cache.ledger import Totals
from diffcache_serving.cache.ledger_sqlite import SqliteLedger
from diffcache_serving.values.errors import LedgerError
from tests.serving.cache.entries import KEY, entry


async def test_a_newer_format_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="format 99"):
        await SqliteLedger.open(path, LCBFU())
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_what_is_no_ledger_is_set_aside(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(content)
    told: list[str] = []
    ledger = await SqliteLedger.open(path, LCBFU(), told.append)
    assert len(told) == 1
    assert "a new ledger begins" in told[0]
    (aside,) = tmp_path.glob("ledger.db.aside-*")
    assert aside.read_bytes() == content
    await ledger.insert(entry("a"), KEY)
    await ledger.close()


async def test_a_ledger_in_use_is_not_taken_for_damaged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    first = await SqliteLedger.open(path, LCBFU())
    await first.insert(entry("a"), KEY)
    await first.close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerError, match="end whatever uses it"):
        await SqliteLedger.open(path, LCBFU())
    holder.close()
    again = await SqliteLedger.open(path, LCBFU())
    assert set(await again.entries(["a"])) == {"a"}
    await again.close()


async def test_a_ledger_from_before_families_is_upgraded_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    first = await SqliteLedger.open(path, LCBFU())
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
    ledger = await SqliteLedger.open(path, LCBFU(), told.append)
    assert told == []
    assert await ledger.adopt("mine", "emoji@f00d", now=5.0) == 1
    assert (await ledger.indexed_ids(StateKind.CLEAN)).mine == {"a"}
    assert (await ledger.drop_retired(before=5.0, limit=9)).entries == ("b",)
    await ledger.close()


async def test_a_failed_write_leaves_nothing() -> None:
    ledger = await SqliteLedger.open(None, LCBFU())
    with pytest.raises(sqlite3.Error):
        await ledger.insert(entry("a", states=(entry("a").states[0],) * 2), KEY)  # one state id twice
    assert await ledger.totals() == Totals()
    assert await ledger.entries(["a"]) == {}
    await ledger.close()


async def test_other_policies_order_by_their_own_scores() -> None:
    """Three entries, the middle one hit twice, the first once and last: who goes first?"""
    first_out = {}
    for name, policy in POLICIES.items():
        ledger = await SqliteLedger.open(None, policy)
        for e in "abc":
            await ledger.insert(entry(e), KEY)
        for hit in ("b", "b", "a"):
            await ledger.record_hit(f"{hit}-0", 3, 3.0)
        dropped = await ledger.reserve(4096, 1, Budget(3 * 4096, 100))
        first_out[name] = dropped.entries[0]
        await ledger.close()
    assert first_out == {"LCBFU": "c", "LCBFUClassic": "c", "LRU": "c", "LFU": "c", "FIFO": "a"}


OPEN_WITHOUT_ROOM = """
import asyncio, pathlib, resource, sys
from diffcache_core.cache.policies import LCBFU
from diffcache_serving.cache.ledger_sqlite import SqliteLedger
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
asyncio.run(SqliteLedger.open(pathlib.Path(sys.argv[1]), LCBFU()))
"""


def test_a_disk_without_room_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    done = subprocess.run([sys.executable, "-c", OPEN_WITHOUT_ROOM, str(path)], capture_output=True, text=True)
    assert done.returncode != 0
    assert f"LedgerError: {path}: " in done.stderr
    assert "free some space there" in done.stderr
