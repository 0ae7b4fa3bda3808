"""Stable Diffusion 1.x and 2.x. Nobody outside this package names a class or a part of its pipeline."""
