"""Kubernetes quantities of bytes, such as `64Mi`."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal, InvalidOperation

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
    """Returns the bytes of a quantity such as `64Mi` or `1.5Gi`, rounded down. Raises ValueError for anything else, and
    from 2^63 bytes on."""
    match = _PARTS.fullmatch(quantity)
    if match is None:
        raise ValueError(f"must be a quantity such as 64Mi or 2Gi, is {quantity!r}")
    size = int(Decimal(match[1]) * _UNITS[match[2] or ""])
    if size >= 2**63:
        raise ValueError(f"must be below 2^63 bytes, is {quantity!r}")
    return size


_AMOUNT = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?")
_FACTORS = {unit: Decimal(factor) for unit, factor in _UNITS.items()} | {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "P": Decimal("1e15"),
    "E": Decimal("1e18"),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}
_MILLI = Decimal("0.001")


def amount_of(quantity: str) -> Decimal | str:
    """Returns the value of an amount of any resource, such as `500m` CPU. A text that is no amount is returned
    unchanged.

    The value is rounded up to thousandths, as Kubernetes does for the resources of a pod.
    """
    match = _AMOUNT.fullmatch(quantity)
    if match is None:
        return quantity
    unit = match[2] or ""
    factor = Decimal(f"1{unit}") if len(unit) > 1 and unit[0] in "eE" and unit != "Ei" else _FACTORS[unit]
    try:
        return (Decimal(match[1]) * factor).quantize(_MILLI, ROUND_CEILING)
    except InvalidOperation:  # it has more digits than any real amount
        return quantity


_BINARY = (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10))


def quantity_of(size: int) -> str:
    """Returns the shortest exact quantity of `size` bytes: 67108864 is 64Mi."""
    return next((f"{size // unit}{name}" for name, unit in _BINARY if size and size % unit == 0), str(size))
