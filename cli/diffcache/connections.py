"""Explains why a connection failed and what to do, because the messages of gRPC do not say what to do. Pure."""

from __future__ import annotations

import re
import ssl

from diffcache_core.names import ADMIN_PORT, GRPC_PORT

CLOSED = "the server closed the connection"

_NOT_GRPC = (
    f"this is not the gRPC port, which is {GRPC_PORT} for pictures and {ADMIN_PORT} for the admin calls by default"
)
_KNOWN = (
    (
        r"WRONG_VERSION_NUMBER",
        "the server does not speak TLS: leave out --tls and --ca-certificate (in Python tls and ca_certificate), or "
        "name another port",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED: (?P<why>[^:]+)",
        "the server's certificate is not trusted ({why}): give the PEM file of the authority that signed it "
        "(--ca-certificate, in Python ca_certificate)",
    ),
    (
        r"Hostname Verification Check failed",
        "the server's certificate is for another host: call the server by a name that stands in its certificate",
    ),
    (r"Failed parsing HTTP/2|http1\.x server", f"an HTTP server answers there: {_NOT_GRPC}"),
    (
        r"Received http2 header with status: (?P<why>\d+)",
        f"an HTTP server or a proxy answers there with status {{why}}: perhaps {_NOT_GRPC}",
    ),
    (
        r"(failed to connect|backends failing).*Socket closed",
        f"{CLOSED}: if it serves TLS, ask for TLS (--tls, in Python tls=True); if not, perhaps {_NOT_GRPC}",
    ),
)
_NOBODY = re.compile(r"failed to connect|backends failing|errors resolving")


def explain_connection(details: str) -> str:
    """Returns reason and remedy for gRPC's `details` of an error, or an empty string if they are not known."""
    for pattern, message in _KNOWN:
        if (found := re.search(pattern, details)) is not None:
            return message.format(**found.groupdict())
    return ""


def is_nobody(message: str) -> bool:
    """Returns whether a message is gRPC's own message that no server answers."""
    return _NOBODY.search(message) is not None


def problem_of_authority(pem: bytes) -> str:
    """Returns what is wrong with the certificates of an authority, or an empty string. gRPC itself accepts any text."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        return "holds no certificate that can be read: give a PEM file, with -----BEGIN CERTIFICATE----- in it"
    return ""
