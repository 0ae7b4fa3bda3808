"""The scaling loop: it turns the waiting work into a number of pods."""
