"""The keyword arguments of `generate` and `stream`: their types for editors, and the message that they become."""

from __future__ import annotations

import difflib
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from google.protobuf.descriptor import FieldDescriptor

from diffcache.wire import GenerationError
from diffcache_core.foreign import quoted
from diffcache_core.generation import CacheMode, ImageFormat, Violation
from diffcache_core.pb import diffcache_pb2 as pb

MAX_TIMEOUT = 1e6
"""Seconds. gRPC takes a larger time for one that has passed."""


class GenerateOptions(TypedDict, total=False):
    """What a request may say beside its prompt; what is absent or None is left to the server."""

    negative_prompt: str | None
    seed: int | None  # the same seed, prompt and parameters again: the same picture, EXACT
    steps: int | None
    guidance: float | None
    width: int | None  # pixels
    height: int | None
    format: ImageFormat | str | None  # or its name, in upper or lower case
    cache_mode: CacheMode | str | None  # likewise
    min_similarity: float | None  # tightens the server's levels
    max_skip_percent: int | None
    request_id: str | None


_FIELDS = pb.GenerateRequest.DESCRIPTOR.fields_by_name
_KINDS = {
    FieldDescriptor.CPPTYPE_STRING: "text",
    FieldDescriptor.CPPTYPE_FLOAT: "a number",
    FieldDescriptor.CPPTYPE_UINT32: f"a whole number from 0 to {2**32 - 1}",
    FieldDescriptor.CPPTYPE_UINT64: f"a whole number from 0 to {2**64 - 1}",
}
"""What a field takes that is no enum."""


def build_request(prompt: str, options: Mapping[str, Any]) -> pb.GenerateRequest:
    """The request for a picture; what the wire can carry the server checks.

    Raises:
        TypeError: for a keyword that there is not, with the one that was meant.
        GenerationError: INVALID_ARGUMENT, with every value that the wire cannot carry.
    """
    check_keywords(options)
    message = pb.GenerateRequest()
    violations = []
    for name, value in {"prompt": prompt, **options}.items():
        if value is None and name != "prompt":
            continue
        try:
            if isinstance(value, bool | bytes):  # which the wire would take for a number, or for text
                raise TypeError
            setattr(message, name, _names(name)[value.upper()] if _FIELDS[name].enum_type else value)
        except UnicodeError:
            violations.append(Violation(name, "must be valid Unicode text: it contains a lone surrogate, remove it"))
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            violations.append(Violation(name, f"must be {_wanted(name)}, is {quoted(repr(value))}"))
    if violations:
        text = "; ".join(f"{v.field}: {v.message}" for v in violations)
        raise GenerationError("INVALID_ARGUMENT", text, tuple(violations))
    message.request_id = message.request_id or uuid.uuid4().hex
    return message


def check_keywords(options: Iterable[str]) -> None:
    """Raises TypeError for a keyword that `generate` and `stream` do not take."""
    known = [*(name for name in _FIELDS if name != "prompt"), "timeout"]
    for name in options:
        if name not in known:
            alike = [one for one in known if one in name or name in one] or difflib.get_close_matches(name, known, 1)
            meant = f"did you mean {alike[0]!r}? " if alike else ""
            raise TypeError(f"there is no option {quoted(name)!r}: {meant}The options are {', '.join(known)}")


def check_timeout(timeout: float | None) -> None:
    """Raises GenerationError unless it is None or seconds that gRPC can wait."""
    if timeout is not None and not (isinstance(timeout, int | float) and 0 < timeout < MAX_TIMEOUT):
        wanted = f"must be above 0 and below {MAX_TIMEOUT:g} seconds"
        raise GenerationError("INVALID_ARGUMENT", f"timeout: {wanted}, is {quoted(repr(timeout))}")


def _names(field: str) -> Mapping[str, int]:
    """The names of an enum's values, without what they all begin with."""
    enum = _FIELDS[field].enum_type
    assert enum is not None
    values = enum.values
    prefix = values[0].name.removesuffix("UNSPECIFIED")
    return {value.name.removeprefix(prefix): value.number for value in values[1:]}


def _wanted(field: str) -> str:
    return f"one of {', '.join(_names(field))}" if _FIELDS[field].enum_type else _KINDS[_FIELDS[field].cpp_type]
