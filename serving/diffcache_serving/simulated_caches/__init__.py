"""Simulated caches of other capacities. They use the keys of the real requests, but no texts and no pictures."""
