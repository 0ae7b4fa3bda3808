"""Values and blocks that several parts of the resource share."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, StrictInt

from diffcache_core.quantities import MEBIBYTE, QUANTITY_PATTERN, amount_of, bytes_of
from diffcache_core.resource.pod import Text
from diffcache_core.resource.rules import Block, Change, Rule

HOST = r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
"""Pattern of a URL's host, with or without a port: a name or an address, without user part and control characters."""


def without_password(remedy: str) -> Rule:
    """Returns a rule like `without_user` for a URL that may name a user but no password."""
    password = re.compile("://[^/]*:[^/]*@")
    return Rule(
        f"!self.matches('{password.pattern}')",
        f"must not hold a password, which whoever may read the manifest could read: {remedy}",
        lambda value: password.search(value) is None,
        spares_private=True,
    )


def without_user(remedy: str) -> Rule:
    """Returns a rule that a URL has no user part, because a ConfigMap would show it. `remedy`: text that names the
    field for a Secret."""
    return Rule(
        "!self.contains('@')",
        f"must not hold a user or a password, which whoever may read the manifest could read: {remedy}",
        lambda value: "@" not in value,
        spares_private=True,
    )


QuantityText = Annotated[
    str,
    Field(max_length=32),
    Rule.matches(QUANTITY_PATTERN, "must be a quantity such as 64Mi or 2Gi"),
]

Quantity = Annotated[
    QuantityText,
    Rule(
        "!isQuantity(self) || quantity(self).compareTo(quantity('1Mi')) >= 0",
        "must be at least 1Mi",
        lambda text: bytes_of(text) >= MEBIBYTE,
    ),
]

Similarity = Annotated[
    str,
    Field(max_length=16),
    Rule.matches(r"^(0(\.[0-9]+)?|1(\.0+)?)$", 'must be a decimal from 0 to 1 in quotes, such as "0.8"'),
]


def _int_or_text(value: object) -> object:
    """Checks that the value is an integer or a text, with one message for both. The API server refuses a decimal
    without quotes, too."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{_AMOUNT}, and a decimal in quotes, is {value!r}")  # pydantic requires a ValueError
    return value


_AMOUNT = "must be an amount such as 2, 500m or 4Gi"

ResourceQuantity = Annotated[
    StrictInt | str,
    BeforeValidator(_int_or_text),
    Field(json_schema_extra={"maxLength": 32}),
    Rule(
        "type(self) == int || isQuantity(string(self))",
        _AMOUNT,
        lambda amount: isinstance(amount, int) or not isinstance(amount_of(amount), str),
    ),
]

ResourceList = Annotated[dict[str, ResourceQuantity], Field(max_length=16)]


class Resources(Block):
    """Requests and limits of a container."""

    requests: ResourceList | None = None
    """Resources reserved for the container, such as {cpu: "2", memory: 8Gi}; decimals need quotes."""
    limits: ResourceList | None = None
    """Most that the container may use; decimals need quotes."""


class VolumeSpec(Block):
    """A volume of each pod."""

    size: Annotated[Quantity, Change.GROW] = "10Gi"
    """Size of the volume; a larger one expands it, where its StorageClass can."""
    storage_class_name: Annotated[Text, Change.IMMUTABLE] | None = None
    """StorageClass of the volume; absent: the cluster's default."""
