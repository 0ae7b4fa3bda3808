"""The keyword arguments of `generate` and `stream`: their types for editors, and their conversion to a message."""

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
"""In seconds. gRPC treats a larger timeout as expired."""


class GenerateOptions(TypedDict, total=False):
    """The optional fields of a request. The server chooses a value for each field that is absent or None."""

    negative_prompt: str | None
    seed: int | None  # the same seed, prompt and parameters give the same picture again (EXACT)
    steps: int | None
    guidance: float | None
    width: int | None  # pixels
    height: int | None
    format: ImageFormat | str | None  # or its name, in upper or lower case
    cache_mode: CacheMode | str | None  # or its name, with a dash or an underscore
    min_similarity: float | None  # makes the server's levels stricter
    max_skip_percent: int | None
    request_id: str | None


_FIELDS = pb.GenerateRequest.DESCRIPTOR.fields_by_name
_KINDS = {
    FieldDescriptor.CPPTYPE_STRING: "text",
    FieldDescriptor.CPPTYPE_FLOAT: "a number",
    FieldDescriptor.CPPTYPE_UINT32: "a whole number",
    FieldDescriptor.CPPTYPE_UINT64: "a whole number",
}
"""The type of each field that is not an enum, in words."""


def build_request(prompt: str, options: Mapping[str, Any]) -> pb.GenerateRequest:
    """Returns the message for a picture, with the same checks as the server. Only checks that depend on the model are
    left to the server.

    Raises:
        TypeError: for an unknown keyword, with the one that was probably meant.
        GenerationError: INVALID_ARGUMENT, with every wrong value.
    """
    check_keywords(options)
    message = pb.GenerateRequest()
    checks = RequestChecks()
    for name, value in {"prompt": prompt, **options}.items():
        if value is None and name != "prompt":
            continue
        try:
            if isinstance(value, bool | bytes):  # protobuf would accept them as a number or as text
                raise TypeError
            setattr(message, name, _names(name)[enum_name(value)] if _FIELDS[name].enum_type else value)
        except UnicodeError:
            checks.value(name, value)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            if (
                name in LIMITS and isinstance(value, int) and not isinstance(value, bool)
            ):  # outside of the range of the field's type
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
    """Raises GenerationError unless `timeout` is None or a number of seconds that gRPC supports."""
    if timeout is not None and not (isinstance(timeout, int | float) and 0 < timeout < MAX_TIMEOUT):
        wanted = f"must be above 0 and below {MAX_TIMEOUT:g} seconds"
        raise GenerationError("INVALID_ARGUMENT", f"timeout: {wanted}, is {quoted(repr(timeout))}")


def _names(field: str) -> Mapping[str, int]:
    """Returns the values of an enum by name, without the common prefix of the names."""
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
