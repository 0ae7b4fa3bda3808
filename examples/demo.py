"""`make demo`: the same twenty prompts without and with the cache, as one picture and one table."""

from __future__ import annotations
