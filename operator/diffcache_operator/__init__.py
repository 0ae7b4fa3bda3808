"""The operator: DiffusionCache resources become serving pods and an index."""
