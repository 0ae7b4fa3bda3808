"""diffcache generate"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffcache_core.foreign import quoted
from diffcache_core.generation import CacheMode, ImageFormat, enum_name
from diffcache_core.names import DEFAULT_TENANT, GRPC_PORT
from diffcache_core.os_errors import explain_os_error

if TYPE_CHECKING:
    from diffcache.client import Client
    from diffcache.options import GenerateOptions
    from diffcache.wire import Generation
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from diffcache.commands.hints import how_to
from diffcache.output import OUTPUT_HELP, Output, bad_option, console, note, print_json, print_table, say
from diffcache.paths import named_path

FORMATS = {".png": ImageFormat.PNG, ".webp": ImageFormat.WEBP, ".jpg": ImageFormat.JPEG, ".jpeg": ImageFormat.JPEG}

MODES = tuple(mode.lower().replace("_", "-") for mode in CacheMode)


def _mode_of(text: str | CacheMode) -> CacheMode:
    try:
        return CacheMode(enum_name(text))
    except ValueError:
        raise bad_option(f"must be one of {', '.join(MODES)}, is {quoted(text)!r}") from None


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    image: Annotated[
        Path, typer.Option("--image", "-o", parser=named_path, help="Where to write it: .png, .webp or .jpg.")
    ] = Path("image.png"),
    server: Annotated[str, typer.Option(help="HOST:PORT of the server.")] = f"localhost:{GRPC_PORT}",
    negative_prompt: Annotated[str, typer.Option("--negative-prompt", "--negative", help="What not to draw.")] = "",
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same picture.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Classifier-free guidance scale.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    cache_mode: Annotated[
        CacheMode,
        typer.Option(
            "--cache-mode",
            "--mode",
            parser=_mode_of,
            metavar=f"[{'|'.join(MODES)}]",
            help="What the request may do with the cache.",
        ),
    ] = CacheMode.DEFAULT,
    min_similarity: Annotated[float | None, typer.Option(help="Resume only from this similarity on.")] = None,
    max_skip_percent: Annotated[
        int | None, typer.Option("--max-skip-percent", "--max-skip", help="Skip at most so many percent of the steps.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="Whose cache to use.")] = DEFAULT_TENANT,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait for the picture.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Show the steps as they run.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show where the time went, and the parent.")] = False,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt the connection.")] = False,
    ca_certificate: Annotated[
        Path | None,
        typer.Option(
            "--ca-certificate", "--ca", parser=named_path, help="PEM file of the authority to trust; implies --tls."
        ),
    ] = None,
    output: Annotated[Output, typer.Option("--output", help=OUTPUT_HELP)] = Output.TABLE,  # -o is the picture
) -> None:
    """Generate a picture and say whether the cache helped."""
    from diffcache.client import Client
    from diffcache.options import MAX_TIMEOUT

    fmt = _format_of(image)
    if timeout is not None and not 0 < timeout < MAX_TIMEOUT:
        raise bad_option(f"must be above 0 and below {MAX_TIMEOUT:g} seconds", "--timeout")
    options: GenerateOptions = {
        "negative_prompt": negative_prompt,
        "seed": seed,
        "steps": steps,
        "guidance": guidance,
        "width": width,
        "height": height,
        "format": fmt,
        "cache_mode": cache_mode,
        "min_similarity": min_similarity,
        "max_skip_percent": max_skip_percent,
    }
    authority = _read_authority(ca_certificate)
    with Client(server, tenant=tenant, tls=tls, ca_certificate=authority, retry_seconds=2.0) as client:
        if stream:
            generation = _generate_with_bar(client, prompt, timeout, options)
        else:
            generation = client.generate(prompt, timeout=timeout, **options)
    try:
        image.write_bytes(generation.data)
    except OSError as error:
        raise bad_option(explain_os_error(error, image, "choose another file"), "--image") from None
    if output is Output.JSON:
        facts = {k: v for k, v in vars(generation).items() if k not in ("data", "image")}
        print_json(facts | {"image": str(image)})
        return
    say(_line(generation, image))
    for name, dropped in (
        ("prompt", generation.prompt_tokens_dropped),
        ("negative prompt", generation.negative_prompt_tokens_dropped),
    ):
        if dropped:
            note(f"the {name} is longer than the model's tokenizer holds: its last {dropped} tokens were dropped")
    if explain:
        _explain(generation)


def _format_of(image: Path) -> ImageFormat:
    fmt = FORMATS.get(image.suffix.lower())
    if fmt is None:
        raise bad_option(f"{image}: the name must end in one of {', '.join(FORMATS)}", "--image")
    if not image.absolute().parent.is_dir():
        raise bad_option(f"{image.absolute().parent} is no folder: make it first", "--image")
    return fmt


def _read_authority(path: Path | None) -> bytes | None:
    from diffcache.connections import problem_of_authority

    if path is None:
        return None
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise bad_option(explain_os_error(error, path), "--ca-certificate") from None
    if problem := problem_of_authority(pem):
        raise bad_option(f"{path} {problem}", "--ca-certificate")
    return pem


def _generate_with_bar(client: Client, prompt: str, timeout: float | None, options: GenerateOptions) -> Generation:
    from diffcache.wire import Generation

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True)) as bar:
        task = bar.add_task("steps", total=None)
        for event in client.stream(prompt, timeout=timeout, **options):
            if isinstance(event, Generation):
                return event
            bar.update(task, total=event.steps, completed=event.step)
    raise RuntimeError("the stream ended without a picture")


def _line(generation: Generation, image: Path) -> str:
    similarity = "" if generation.similarity is None else f"similarity {generation.similarity:.3f}  "
    flagged = "  blacked out by the safety checker" if generation.flagged else ""
    return (
        f"{generation.result.value}  {similarity}skipped {generation.steps_skipped}/{generation.steps} steps  "
        f"{generation.seconds['total']:.2f} s  seed {generation.seed}  {image}{flagged}"
    )


def _explain(generation: Generation) -> None:
    rows: list[tuple[str, object]] = [(name, f"{value * 1000:.1f} ms") for name, value in generation.seconds.items()]
    rows.append(("parent", generation.parent_entry_id or "none"))
    rows.append(("depth", generation.depth))
    rows.append(("request id", generation.request_id))
    rows.append(("model", generation.model))
    rows.append(("prompt tokens dropped", generation.prompt_tokens_dropped))
    rows.append(("negative prompt tokens dropped", generation.negative_prompt_tokens_dropped))
    print_table(("what", "value"), rows)
    if generation.parent_entry_id:
        say(f"more about the parent: {how_to('cache show')} {generation.parent_entry_id}")
