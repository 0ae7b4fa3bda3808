"""Kubernetes quantities of bytes, such as `64Mi`."""

from __future__ import annotations

import re
from decimal import Decimal

QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]{1,9})?(Ki|Mi|Gi|Ti|k|M|G|T)?$"
MEBIBYTE = 2**20
_PARTS = re.compile(r"([0-9]+(?:\.[0-9]{1,9})?)(Ki|Mi|Gi|Ti|k|M|G|T)?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12} | {
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


def bytes_of(quantity: str) -> int:
    """Bytes of a quantity such as `64Mi` or `1.5Gi`, rounded down. Raises ValueError for anything else."""
    match = _PARTS.fullmatch(quantity)
    if match is None:
        raise ValueError(f"must be a quantity such as 64Mi or 2Gi, is {quantity!r}")
    size = int(Decimal(match[1]) * _UNITS[match[2] or ""])
    if size >= 2**63:
        raise ValueError(f"must be below 2^63 bytes, is {quantity!r}")
    return size


_AMOUNT = re.compile(r"([0-9]*\.?[0-9]+)(m|Ki|Mi|Gi|Ti|k|M|G|T)?")


def amount_of(quantity: str) -> Decimal | str:
    """The value of any amount of a resource, `500m` CPU too; what is none is returned as it is."""
    match = _AMOUNT.fullmatch(quantity)
    if match is None:
        return quantity
    return Decimal(match[1]) * (Decimal("0.001") if match[2] == "m" else _UNITS[match[2] or ""])
