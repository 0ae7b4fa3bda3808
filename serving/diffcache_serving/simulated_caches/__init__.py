"""Caches of other capacities, simulated beside the real one over keys only: no text, no pictures."""
