"""The documents name every reason that a condition may have, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from diffcache_core.reasons import Reason

ROOT = Path(__file__).parents[2]
CODE = (ROOT / "operator/diffcache_operator", ROOT / "core/diffcache_core")
PLACES = {
    "ConditionState": 2,
    "Problem": 0,
    "frozen": 0,
    "stay": 0,
}  # of the reason among the arguments of what is called
PARTS = {f"{part}NotReached" for part in ("Index", "Ledger", "Store")} | {
    f"ServingWithout{part}" for part in ("Index", "Ledger", "Store")
}  # made of the part's name, by status.py

FINE = (
    "the pods reach the index",
    "the pods reach the ledger",
    "the bucket answers",
)  # rows of what is as it should be


def nodes() -> Iterator[ast.AST]:
    for folder in CODE:
        for path in folder.rglob("*.py"):
            if path.parent.name != "pb":
                yield from ast.walk(ast.parse(path.read_text()))


def reasons() -> Iterator[str]:
    """That the code gives as such, word for word."""
    for node in nodes():
        given: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            given += node.args[PLACES[name] : PLACES[name] + 1] if name in PLACES else []
            given += [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "reason":
            given.append(node.value)
        yield from (str(one.value) for one in given if isinstance(one, ast.Constant) and one.value)


def conditions() -> str:
    text = (ROOT / "docs/cluster.md").read_text()
    begin = text.index("## Conditions")
    return text[begin : text.index("\n## ", begin + 1)]


def test_every_reason_is_in_the_documents() -> None:
    text = "".join((ROOT / "docs" / name).read_text() for name in ("cluster.md", "tuning.md"))
    told = set(re.findall(r"`([A-Z][A-Za-z]+)`", text))
    assert set(reasons()) | set(Reason) | PARTS <= told


def test_the_documents_name_no_reason_that_there_is_not() -> None:
    words = {node.value for node in nodes() if isinstance(node, ast.Constant) and isinstance(node.value, str)} | PARTS
    told = {
        word
        for row in re.findall(r"^\| (`[^|]+)\|", conditions(), re.MULTILINE)
        for word in re.findall(r"`(\w+)`", row)
    }
    assert told - words == set()


def test_every_row_of_a_false_condition_says_what_to_do() -> None:
    """The fault was a table that promised it and had no such column."""
    for block in re.split(r"\n\n", conditions()):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        if rows:
            assert [cell.strip() for cell in rows[0].strip("|").split("|")] == ["reason", "means", "what to do"]
        for row in rows[2:]:
            _, means, remedy = (cell.strip() for cell in row.strip("|").split("|"))
            fine = means.startswith(("true", "`Unknown`")) or means in FINE
            assert remedy or fine, row


def test_scaling_has_no_row_of_another_condition() -> None:
    text = conditions()
    scaling = text[text.index("`ScalingActive`, with") :]
    assert "ServingWithout" not in scaling[: scaling.index("`Reconciling` exists")]
