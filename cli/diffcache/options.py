"""The keyword arguments of `generate` and `stream`: their types for editors, and the message that they become."""

from __future__ import annotations

import difflib
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from google.protobuf.descriptor import FieldDescriptor

from diffcache.wire import GenerationError, raise_violations
from diffcache_core.foreign import quoted
from diffcache_core.generation import LIMITS, CacheMode, ImageFormat, RequestChecks, enum_name, shown_limits
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
    cache_mode: CacheMode | str | None  # likewise; a dash is as good as an underscore
    min_similarity: float | None  # tightens the server's levels
    max_skip_percent: int | None
    request_id: str | None


_FIELDS = pb.GenerateRequest.DESCRIPTOR.fields_by_name
_KINDS = {
    FieldDescriptor.CPPTYPE_STRING: "text",
    FieldDescriptor.CPPTYPE_FLOAT: "a number",
    FieldDescriptor.CPPTYPE_UINT32: "a whole number",
    FieldDescriptor.CPPTYPE_UINT64: "a whole number",
}
"""What a field takes that is no enum."""


def build_request(prompt: str, options: Mapping[str, Any]) -> pb.GenerateRequest:
    """The request for a picture, checked as the server does; what depends on its model, the server checks alone.

    Raises:
        TypeError: for a keyword that there is not, with the one that was meant.
        GenerationError: INVALID_ARGUMENT, with every wrong value.
    """
    check_keywords(options)
    message = pb.GenerateRequest()
    checks = RequestChecks()
    for name, value in {"prompt": prompt, **options}.items():
        if value is None and name != "prompt":
            continue
        try:
            if isinstance(value, bool | bytes):  # which the wire would take for a number, or for text
                raise TypeError
            setattr(message, name, _names(name)[enum_name(value)] if _FIELDS[name].enum_type else value)
        except UnicodeError:
            checks.value(name, value)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            if (
                name in LIMITS and isinstance(value, int) and not isinstance(value, bool)
            ):  # beyond what the wire carries
                checks.value(name, value)
            else:
                checks.fail(name, f"must be {_wanted(name)}, is {quoted(repr(value))}")
        else:
            if not _FIELDS[name].enum_type and (value or name != "request_id"):
                checks.value(name, getattr(message, name))
    raise_violations(checks)
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
    if _FIELDS[field].enum_type:
        return f"one of {', '.join(_names(field))}"
    kind = _KINDS[_FIELDS[field].cpp_type]
    return f"{kind} {shown_limits(field)}" if field in LIMITS else kind
