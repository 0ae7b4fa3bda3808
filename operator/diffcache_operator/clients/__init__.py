"""Clients of the servers that the operator calls: the API server, Prometheus, and the metrics of its pods."""
