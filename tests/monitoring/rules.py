"""The chart's rules and dashboards, and what is in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILES = ROOT / "charts/diffcache/files"
RULES = FILES / "rules.yaml"
DASHBOARDS = sorted((FILES / "dashboards").glob("*.json"))

JSON = dict[str, Any]
_RAW = re.compile(r"\bdiffcache_[a-z0-9_]+")
_RECORDED = re.compile(r"\bdiffcache:[a-z0-9_:]+")


def all_rules() -> list[JSON]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> dict[str, JSON]:
    return {rule["alert"]: rule for rule in all_rules() if "alert" in rule}


def recorded() -> set[str]:
    return {rule["record"] for rule in all_rules() if "record" in rule}


def queries(dashboard: Path) -> list[str]:
    """Of its panels."""
    panels = json.loads(dashboard.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def variables(dashboard: Path) -> list[str]:
    """The queries that fill its variables."""
    return [one["query"] for one in json.loads(dashboard.read_text())["templating"]["list"] if one["type"] == "query"]


def series_named(query: str) -> set[str]:
    """Names of exported series in a query."""
    return set(_RAW.findall(query))


def recordings_named(query: str) -> set[str]:
    return set(_RECORDED.findall(query))
