"""Comparisons in the background: they draw a picture again without the cache, or at a looser level, and score it."""
