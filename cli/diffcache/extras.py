"""What some commands need beside the client, and how a person gets it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from diffcache_core.resource.manifest import ManifestError

LOCAL = "local"
"""The extra that serves, calibrates and simulates on this machine."""


def how_to_install(extra: str = "") -> str:
    """No package index has diffcache: the chart's notes and the README say the same, and a test holds them to it."""
    what = f"'.[{extra}]'" if extra else "."
    return f"`pip install {what}` in a checkout of diffcache's repository"


def need_modules(purpose: str, modules: Iterable[str]) -> None:
    """Raises ManifestError if one of them is not installed. `purpose`: "serving"."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise ManifestError(f"{purpose} needs {', '.join(missing)}: run {how_to_install(LOCAL)}")
