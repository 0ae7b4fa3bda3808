"""The scaling loop: the work that waits becomes a number of pods."""
