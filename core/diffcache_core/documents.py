"""Reads YAML and JSON from outside, with limits: a small document cannot cost much time or memory.

All YAML and JSON is read here: a manifest, a model's levels, the tuner's record, a configuration.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from diffcache_core.foreign import printable, quoted
from diffcache_core.os_errors import explain_os_error

MAX_BYTES = 2**19
"""Bytes of one file or text, and characters of a YAML document with its aliases expanded, at most. Our documents have a
few KiB, some 15 with what a cluster adds. With a larger limit a hostile file costs more: YAML takes 10 s and 300 MiB of
memory for each MiB."""

MAX_DEPTH = 64
"""Nested blocks at most. A resource with its managedFields has some 20. Beyond about 300 the parser would hit Python's
recursion limit."""

MAX_NUMBER_CHARACTERS = 64
"""Characters of one number at most. The time to read a number grows with the square of its length."""


class DocumentError(ValueError):
    """A document cannot be used. The message names the file and says what is wrong."""


def read_document(path: Path) -> str:
    """Returns the text of a file. Raises DocumentError if it cannot be read, is too large or is not in UTF-8."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DocumentError(explain_os_error(error, path)) from None
    return checked_text(data, str(path))


def checked_text(data: bytes, origin: str) -> str:
    """Decodes `data`. Raises DocumentError if it has more than MAX_BYTES or is not in UTF-8."""
    origin = printable(origin)
    if len(data) > MAX_BYTES:
        raise DocumentError(f"{origin} has more than {MAX_BYTES:,} bytes: is it the right file?")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise DocumentError(f"{origin} is not a text file in UTF-8") from None


def parse_json(text: str, origin: str) -> Any:
    """Returns the value of a JSON text. Raises DocumentError."""
    try:
        checked_text(text.encode("utf-8", "replace"), origin)
        return json.loads(text)
    except RecursionError:
        raise DocumentError(f"{printable(origin)} is nested too deep: is it the right file?") from None
    except DocumentError:
        raise
    except ValueError as error:
        raise DocumentError(f"{printable(origin)} is not JSON: {quoted(str(error))}") from None


def read_json(path: Path) -> Any:
    """Returns the value of a JSON file. Raises DocumentError."""
    return parse_json(read_document(path), str(path))


def parse_yaml(text: str, origin: str) -> Sequence[object]:
    """Returns the documents of a YAML text without empty ones. Raises DocumentError."""
    try:
        checked_text(text.encode("utf-8", "replace"), origin)
        return [document for document in yaml.load_all(text, _Loader) if document is not None]
    except DocumentError:
        raise
    except Exception as error:  # yaml's constructors raise errors of any type for a value that does not fit its tag
        raise DocumentError(f"{printable(origin)} is not YAML: {quoted(_reason(error))}") from None


def _reason(error: Exception) -> str:
    """Returns the error's message without the lines that YAML quotes: they may contain a password."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return str(error).replace(' in "<unicode string>",', " at")
    mark = error.problem_mark or error.context_mark
    where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    return f"{error.problem or error.context}{where}"


class _Loader(yaml.SafeLoader):
    """Loads YAML's safe subset, with limits on depth and on the size of expanded aliases, and without repeated keys.

    It checks the limits while nodes are composed, before any value is made. A date stays a text, as on the API server.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  # like its base class
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[yaml.Node, int] = {}  # characters of each node with its aliases expanded

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # of types-pyyaml
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _wrong(f"more than {MAX_DEPTH} blocks within blocks", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and not isinstance(event, yaml.AliasEvent):
            self._sizes[node] = self._size_of(node, event)
        return node

    def _size_of(self, node: yaml.Node, event: Any) -> int:
        if isinstance(node, yaml.ScalarNode):
            return len(node.value) + 1
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            parts = [part for pair in node.value for part in pair]
        else:
            parts = node.value
        if any(part not in self._sizes for part in parts):
            raise _wrong("a block that contains itself", event)
        size = 1 + sum(self._sizes[part] for part in parts)
        if size > MAX_BYTES:
            raise _wrong(f"more than {MAX_BYTES:,} characters once its aliases are written out", event)
        return size


def _wrong(problem: str, event: Any) -> yaml.YAMLError:
    return yaml.composer.ComposerError(None, None, problem, event.start_mark)


def _check_keys(node: yaml.MappingNode) -> None:
    """Raises ComposerError if a key appears twice. Else the last one would win silently; the API server warns about
    it."""
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            if key.value in seen:
                raise yaml.composer.ComposerError(
                    None, None, f"the key {quoted(key.value, 60)!r} stands there twice", key.start_mark
                )
            seen.add(key.value)


def _construct_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float | str:
    """Returns a number, or the text if it is too long or a number to the base of 60 of old YAML, such as 1:30."""
    if ":" in node.value or len(node.value) > MAX_NUMBER_CHARACTERS:
        return node.value
    kind = node.tag.rpartition(":")[2]
    return loader.construct_yaml_int(node) if kind == "int" else loader.construct_yaml_float(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _construct_number)
