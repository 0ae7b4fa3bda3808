"""The text on a terminal when a server is ready: what it serves, where, and commands to try. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from diffcache_core.cache.resume import Levels
from diffcache_core.foreign import printable
from diffcache_core.names import ADMIN_PORT, GRPC_PORT

_SOURCES = {
    "model": "measured, of the model's folder",
    "manifest": "of the manifest",
    "tuner": "chosen by the tuner",
}
_PROMPTS = {
    True: ("red apple, noto style", "red apple, flat style"),
    False: ("a red apple on a table", "a red apple on a wooden table"),
}
"""Two similar prompts, for a bundled model (True) and for any other (False)."""


@dataclass(frozen=True)
class Standing:
    """The facts in the banner. Addresses are HOST:PORT, `metrics` is a URL."""

    version: str
    model: str
    source: str  # as written in the manifest
    device: str
    levels: Levels
    levels_source: str
    entries: int
    data: str
    grpc: str
    admin: str
    metrics: str
    tls: bool


def build_banner(standing: Standing) -> str:
    facts = [
        ("levels", _levels(standing)),
        ("cache", f"{standing.entries} entries in {standing.data}"),
        ("pictures", standing.grpc + (" (gRPC, TLS)" if standing.tls else " (gRPC)")),
        ("admin", f"{standing.admin} (gRPC)"),
        ("metrics", standing.metrics),
    ]
    lines = [f"diffcache {standing.version} serves {standing.model} on {standing.device}", ""]
    lines += [f"  {name:<9} {value}" for name, value in facts]
    lines += ["", "Try, in another terminal:"]
    lines += [f"  {command}" for command in _commands(standing)]
    lines += ["", "Ctrl-C ends it; the cache stays."]
    return "\n".join(map(printable, lines)) + "\n"


def _levels(standing: Standing) -> str:
    table = ", ".join(f"{level.skip_percent}% from {level.similarity:g}" for level in standing.levels.table)
    if not table:
        measure = f"`diffcache calibrate --model {shlex.quote(standing.source)}`"
        return f"none, so only EXACT hits are served: {measure} measures what may be skipped"
    return f"{table} ({_SOURCES.get(standing.levels_source, standing.levels_source)})"


def _commands(standing: Standing) -> list[str]:
    server = _option("--server", standing.grpc, GRPC_PORT) + (" --tls" if standing.tls else "")
    prompts = _PROMPTS[standing.source.startswith("bundled://")]
    pictures = [
        f'diffcache generate "{prompt}"{server} -o {name}.png' for prompt, name in zip(prompts, "ab", strict=True)
    ]
    return [*pictures, f"diffcache stats{_option('--admin', standing.admin, ADMIN_PORT)}"]


def _option(name: str, address: str, port: int) -> str:
    """Returns the option with the address, or nothing if the address is the command's default."""
    host, _, own = address.rpartition(":")
    if host in ("127.0.0.1", "localhost", "0.0.0.0", "[::]", "[::1]"):  # noqa: S104  # this is what the server listens on
        return "" if own == str(port) else f" {name} localhost:{own}"
    return f" {name} {address}"
