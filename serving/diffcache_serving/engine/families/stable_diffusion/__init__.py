"""Stable Diffusion 1.x and 2.x. Only this package knows the classes and parts of its pipeline."""
