"""Comparisons beside the requests: what a picture would have been without the cache, or at a looser level."""
