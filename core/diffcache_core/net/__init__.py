"""Listening sockets, a small HTTP server, and the rules about proxies."""
