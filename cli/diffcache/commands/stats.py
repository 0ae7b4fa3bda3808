"""diffcache stats"""

from __future__ import annotations

from typing import Annotated

import typer

from diffcache.output import Output, OutputOption, print_json, print_table, size
from diffcache_core.names import ADMIN_PORT

AdminOption = Annotated[str, typer.Option("--admin", help="HOST:PORT of the server's admin endpoint.")]
ADMIN = f"localhost:{ADMIN_PORT}"


def stats(admin: AdminOption = ADMIN, output: OutputOption = Output.TABLE) -> None:
    """Show what the cache has saved since the server started, and what it holds."""
    from google.protobuf.json_format import MessageToDict

    from diffcache.admin import AdminClient
    from diffcache.tuning_report import read_record
    from diffcache_core.pb import diffcache_pb2 as pb

    with AdminClient(admin) as client:
        s = client.call("GetStats", pb.GetStatsRequest())
    if output is Output.JSON:
        print_json(MessageToDict(s, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))
        return
    levels = ", ".join(f"{v.skip_percent}% from {v.similarity:.2f}" for v in s.levels) or "none"
    print_table(
        ("what", "value"),
        [
            (
                "requests",
                f"{s.requests} ({s.exact} exact, {s.approximate} approximate, {s.miss} miss, {s.bypass} bypass, "
                f"{s.errors} error)",
            ),
            ("steps saved", f"{s.steps_skipped} of {s.steps_run + s.steps_skipped} ({s.steps_saved_ratio:.1%})"),
            ("cache", f"{s.entries} entries, {size(s.bytes)} of {size(s.capacity_bytes)}"),
            ("pending steps", s.pending_steps),
            ("levels", f"{levels} (from: {s.levels_source})"),
            *([("tuning", read_record(s.tuning).decision or "waits for its first look")] if s.tuning else []),
            ("model", f"{s.model} on {s.device}"),
        ],
    )
