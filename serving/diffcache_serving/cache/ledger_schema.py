"""The SQLite tables of the ledger, and what later releases added to them."""

from __future__ import annotations

import sqlite3

from diffcache_core.cache.space import FORMAT_VERSION

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY) STRICT;
CREATE TABLE entries (
    id TEXT PRIMARY KEY, space TEXT NOT NULL, exact TEXT NOT NULL UNIQUE, prompt_digest TEXT NOT NULL,
    prompt TEXT NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL, seed INTEGER NOT NULL, steps INTEGER NOT NULL,
    skipped INTEGER NOT NULL, similarity REAL NOT NULL, depth INTEGER NOT NULL, parent TEXT NOT NULL,
    created REAL NOT NULL, key BLOB NOT NULL
) STRICT;
CREATE TABLE states (
    id TEXT PRIMARY KEY, entry_id TEXT NOT NULL REFERENCES entries(id), kind TEXT NOT NULL, k INTEGER NOT NULL,
    bytes INTEGER NOT NULL, checksum TEXT NOT NULL, score REAL NOT NULL, saves INTEGER NOT NULL, benefit REAL NOT NULL,
    uses INTEGER NOT NULL, created INTEGER NOT NULL, touched INTEGER NOT NULL, age REAL NOT NULL
) STRICT;
CREATE INDEX states_by_score ON states (score, created, id);
CREATE INDEX states_by_entry ON states (entry_id);
CREATE TABLE grants (k INTEGER PRIMARY KEY, hits INTEGER NOT NULL) STRICT;
INSERT INTO meta VALUES ('id', lower(hex(randomblob(16))));
"""
# Additions after the first release. They are made in place, because an older diffcache can still read the result.
_FAMILY_COLUMN = "ALTER TABLE entries ADD COLUMN family TEXT NOT NULL DEFAULT ''"
_ADDITIONS = """
CREATE INDEX IF NOT EXISTS entries_by_family ON entries (family);
CREATE TABLE IF NOT EXISTS retired (family TEXT PRIMARY KEY, since REAL NOT NULL) STRICT;
"""


def create_tables(db: sqlite3.Connection) -> None:
    """Creates the tables of the first release in an empty file."""
    db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {FORMAT_VERSION}; COMMIT;")


def add_what_is_missing(db: sqlite3.Connection) -> None:
    """Updates the tables of any release of this format, without loss of data."""
    if "family" not in {row[1] for row in db.execute("PRAGMA table_info(entries)")}:
        db.execute(_FAMILY_COLUMN)
    db.executescript(f"BEGIN; {_ADDITIONS} COMMIT;")
