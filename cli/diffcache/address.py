"""Checks the address of a server: HOST:PORT, or a name in gRPC's own syntax. Errors say what to write instead. Pure.

gRPC itself treats nearly every text as a name to look up, and then only says that the server does not answer.
"""

from __future__ import annotations

import ipaddress
import re

from diffcache.wire import GenerationError
from diffcache_core.foreign import quoted

_PASSED_ON = ("unix:", "unix-abstract:", "vsock:", "xds:")
_SCHEME = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_SECURE = ("https://", "grpcs://")
_RESOLVER = re.compile(r"dns:(//[^/]*/)?|ipv4:|ipv6:")
_HOST_AND_PORT = re.compile(r"(?P<host>\[[^\[\]\s]*:[^\[\]\s]*\]|[^:\[\]\s]+)(:(?P<port>[0-9]{0,5}))?", re.ASCII)


def checked_address(address: str, what: str, port: int) -> str:
    """Checks `address` and returns it without surrounding space.

    Args:
        address: HOST:PORT, dns:[//AUTHORITY/]HOST:PORT, ipv4: or ipv6: and a list of addresses, or unix:PATH.
        what: the name of the address in messages.
        port: the port that messages suggest if `address` has none.

    Raises:
        GenerationError: INVALID_ARGUMENT, with what to write.
    """
    address = address.strip()
    if address.startswith(_PASSED_ON):
        return address
    found = _RESOLVER.match(address)
    resolver = found[0] if found is not None else ""
    places = address.removeprefix(resolver)
    for place in places.split(",") if resolver.startswith("ip") else [places]:
        problem, remedy = _problem_of(place, port)
        if problem:
            advice = f"write {quoted(resolver + remedy)}" if remedy else f"write HOST:PORT, such as localhost:{port}"
            secure = " and ask for TLS (--tls, tls=True)" if place.lower().startswith(_SECURE) else ""
            raise GenerationError("INVALID_ARGUMENT", f"{what}: {problem}: {advice}{secure}")
    return address


def _problem_of(place: str, port: int) -> tuple[str, str]:
    """Returns what is wrong with a HOST:PORT, and the probable correct text.

    The first is empty if nothing is wrong, the second if the correct text is unclear.
    """
    scheme = _SCHEME.match(place)
    rest = place[scheme.end() :] if scheme is not None else place
    rest = re.split(r"[/?#]", rest)[0].rpartition("@")[2]
    meant = _as_host_and_port(rest, port)
    if meant == place and place:
        return "", ""
    if scheme is not None:
        return f"gRPC takes no {scheme[0].lower()}", meant
    if not place:
        return "is empty", ""
    if rest != place:
        return "a path, a query or a user has no place in it", meant
    if not meant:
        return f"{quoted(place)} is not a host and a port from 1 to 65535", ""
    return (
        f"{quoted(place)} has no brackets" if meant.startswith("[") > place.startswith("[") else "it has no port"
    ), meant


def _as_host_and_port(text: str, port: int) -> str:
    """Returns `text` as HOST:PORT, with `port` if it has none. Returns an empty string if it has no valid form."""
    before, _, last = text.rpartition(":")
    if _is_ipv6(before) and len(last) == 5 and last.isdecimal():  # a group of an IPv6 address never has five digits
        return f"[{before}]:{last}"
    if _is_ipv6(text):
        return f"[{text}]:{port}"
    found = _HOST_AND_PORT.fullmatch(text)
    if found is None or not text.isprintable() or not 1 <= int(found["port"] or port) <= 65535:
        return ""
    return f"{found['host']}:{found['port'] or port}"


def _is_ipv6(text: str) -> bool:
    try:
        return isinstance(ipaddress.ip_address(text), ipaddress.IPv6Address)
    except ValueError:
        return False
