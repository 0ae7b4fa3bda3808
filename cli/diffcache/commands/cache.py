"""diffcache cache ls | show | purge"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from diffcache.commands.hints import how_to
from diffcache.commands.stats import ADMIN, AdminOption
from diffcache.output import Output, OutputOption, bad_option, duration, note, print_json, print_table, say, size

app = typer.Typer(help="Look into the cache, and purge it.", no_args_is_help=True)


@app.command()
def ls(
    tenant: Annotated[str, typer.Option(help="Only this tenant's entries.")] = "",
    contains: Annotated[str, typer.Option(help="Only entries whose prompt contains this.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, newest first.")] = 20,
    admin: AdminOption = ADMIN,
    output: OutputOption = Output.TABLE,
) -> None:
    """List entries, newest first."""
    answer = _list(admin, tenant=tenant, prompt_contains=contains, limit=limit)
    if output is Output.JSON:
        print_json([_facts(entry) for entry in answer.entries])
        return
    rows = [
        (e.id, e.prompt, e.tenant, e.depth, e.uses, size(sum(s.bytes for s in e.states)), f"{_age(e)} ago")
        for e in answer.entries
    ]
    print_table(("ENTRY", "PROMPT", "TENANT", "DEPTH", "USES", "SIZE", "AGE"), rows)
    if answer.total > len(rows):
        say(f"{answer.total - len(rows)} more: narrow with --contains or --tenant, or raise --limit")


@app.command()
def show(
    entry_id: Annotated[str, typer.Argument(help="Its id, as the list of entries or `generate --explain` prints it.")],
    admin: AdminOption = ADMIN,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one entry and its states."""
    if not entry_id:
        raise bad_option(f"must not be empty: give an entry of `{how_to('cache ls')}`", "ENTRY_ID")
    answer = _list(admin, entry_id=entry_id, limit=1)
    if not answer.entries:
        note(f"diffcache: there is no entry {entry_id} (any more): see `{how_to('cache ls')}`")
        raise typer.Exit(1)
    facts = _facts(answer.entries[0])
    if output is Output.JSON:
        print_json(facts)
        return
    states = facts.pop("states", [])
    print_table(("what", "value"), list(facts.items()))
    print_table(
        ("STATE", "KIND", "STEP", "SIZE", "SCORE", "USES"),
        [(s["id"], s["kind"], s["step"], size(int(s["bytes"])), f"{s['score']:.3g}", s["uses"]) for s in states],
    )


@app.command()
def purge(
    prompt: Annotated[str, typer.Option(help="Entries of exactly this prompt.")] = "",
    tenant: Annotated[str, typer.Option(help="Entries of this tenant.")] = "",
    model: Annotated[str, typer.Option(help="Entries of this model, by name or fingerprint.")] = "",
    entry: Annotated[str, typer.Option(help="This entry.")] = "",
    all_: Annotated[bool, typer.Option("--all", help="Every entry.")] = False,
    admin: AdminOption = ADMIN,
    output: OutputOption = Output.TABLE,
) -> None:
    """Drop entries. When it returns, none of them is served any more."""
    from diffcache.admin import AdminClient
    from diffcache_core.pb import diffcache_pb2 as pb

    targets = {"prompt": prompt, "tenant": tenant, "model": model, "entry_id": entry, "all": all_}
    chosen: dict[str, Any] = {name: value for name, value in targets.items() if value}
    if len(chosen) != 1:
        raise bad_option("give exactly one of --prompt, --tenant, --model, --entry and --all")
    with AdminClient(admin) as client:
        answer = client.call("Purge", pb.PurgeRequest(**chosen))
    if output is Output.JSON:
        print_json({"entries": answer.entries, "bytes": answer.bytes})
    else:
        say(f"purged {answer.entries} entries, {size(answer.bytes)}")


def _list(admin: str, **request: Any) -> Any:
    from diffcache.admin import AdminClient
    from diffcache_core.pb import diffcache_pb2 as pb

    with AdminClient(admin) as client:
        return client.call("ListEntries", pb.ListEntriesRequest(**request))


def _facts(entry: Any) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict

    return dict(MessageToDict(entry, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))


def _age(entry: Any) -> str:
    import time

    return duration(time.time() - entry.created.ToSeconds())
