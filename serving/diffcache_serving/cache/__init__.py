"""Index, ledger and store, and the cache that keeps the three in step."""
