"""The optional packages that some commands need, and how to install them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from diffcache_core.resource.manifest import ManifestError

LOCAL = "local"
"""The extra that is needed to serve, calibrate and simulate on this machine."""


def how_to_install(extra: str = "") -> str:
    """Returns the command that installs diffcache from a checkout, because no package index has diffcache.

    The chart's notes and the README give the same command; a test checks that.
    """
    what = f"'.[{extra}]'" if extra else "."
    return f"`pip install {what}` in a checkout of diffcache's repository"


def need_modules(purpose: str, modules: Iterable[str]) -> None:
    """Raises ManifestError if one of the modules is not installed. `purpose` begins the message, such as "serving"."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise ManifestError(f"{purpose} needs {', '.join(missing)}: run {how_to_install(LOCAL)}")
