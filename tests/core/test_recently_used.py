"""What callers choose as keys does not make a map grow, and what is asked for stays."""

from __future__ import annotations

from diffcache_core.recently_used import RecentlyUsed


def test_the_least_recently_used_one_goes() -> None:
    kept: RecentlyUsed[str, int] = RecentlyUsed(2)
    assert kept.put("a", 0) == 0
    kept.put("b", 1)
    assert kept.get("a") == 0
    kept.put("c", 2)
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (0, None, 2)
    kept.put("a", 3)
    kept.put("d", 4)
    assert (len(kept), kept.get("a"), kept.get("c")) == (2, 3, None)
