"""diffcache tuning"""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from diffcache.commands.stats import ADMIN, AdminOption
from diffcache.output import Output, OutputOption, note, print_json, show


def tuning(admin: AdminOption = ADMIN, output: OutputOption = Output.TABLE) -> None:
    """Show what the tuner of a local server has decided, and from what. Exit status 1 if it does not tune."""
    from diffcache.admin import AdminClient
    from diffcache.tuning_report import facts, layout, read_record
    from diffcache_core.pb import diffcache_pb2 as pb

    with AdminClient(admin) as client:
        document = client.call("GetStats", pb.GetStatsRequest()).tuning
    if not document:
        note(
            "this server does not tune itself: set spec.tuning.mode to Recommend or Auto in its manifest; of one in a "
            "cluster `kubectl diffcache tuning NAME` shows it"
        )
        raise typer.Exit(1)
    record = read_record(document)
    if output is Output.JSON:
        print_json(facts(admin, "", record))
    else:
        show(layout(admin, "", record, datetime.now(UTC)))
