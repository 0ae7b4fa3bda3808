"""Whom the operator talks to: the API server, and the metrics of its pods."""
