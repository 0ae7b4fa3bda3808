"""Listening, answering HTTP, and the proxies of the environment."""
