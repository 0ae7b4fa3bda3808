"""`make demo`: the same prompts without and with the cache, as one picture and one table.

Starts `diffcache up` on the quickstart manifest with an empty cache, draws every prompt twice with the same seed (first
with BYPASS, then with the cache), and writes demo/contact-sheet.png: for each request that the cache helped, the
uncached picture, the cached picture, and the parent it resumed from.
"""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from diffcache import CacheMode, Client, Generation, GenerationError, Result

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "examples" / "quickstart.yaml"
SHEET = ROOT / "demo" / "contact-sheet.png"

PROMPTS = (
    ("red apple, noto style", 1),
    ("grinning cat, noto style", 2),
    ("pizza, flat style", 3),
    ("red apple, flat style", 4),
    ("orange heart, noto style", 5),
    ("grinning cat, flat style", 6),
    ("a red apple, noto style", 7),
    ("dog face, flat style", 8),
    ("a slice of pizza, flat style", 9),
    ("yellow heart, noto style", 10),
    ("red apple, noto style", 1),  # the very same request: EXACT
    ("smiling face with sunglasses, noto style", 11),
    ("a grinning cat, flat style", 12),
    ("tiger face, noto style", 13),
    ("smiling face with sunglasses, flat style", 14),
    ("pizza, noto style", 15),
    ("dog face, noto style", 16),
    ("tiger face, flat style", 17),
    ("a dog face, flat style", 18),
    ("doughnut, flat style", 19),
    ("orange heart, flat style", 20),
    ("doughnut, noto style", 21),
)


@dataclass(frozen=True)
class Row:
    prompt: str
    uncached: Generation
    cached: Generation


def main() -> None:
    console = Console()
    with tempfile.TemporaryDirectory(prefix="diffcache-demo-") as folder:
        ports = free_ports(3)
        with server(Path(folder), ports, console), Client(f"127.0.0.1:{ports[0]}") as client:
            rows = draw(client, console)
    parents = {row.cached.entry_id: row for row in rows}
    print_table(rows, console)
    SHEET.parent.mkdir(exist_ok=True)
    contact_sheet([row for row in rows if row.cached.steps_skipped], parents).save(SHEET)
    console.print(f"The pictures, side by side: {SHEET.relative_to(ROOT)}")


def draw(client: Client, console: Console) -> list[Row]:
    rows = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, refresh_per_second=4) as bar:
        task = bar.add_task("drawing each prompt twice", total=len(PROMPTS))
        for prompt, seed in PROMPTS:
            uncached = client.generate(prompt, seed=seed, cache_mode=CacheMode.BYPASS)
            cached = client.generate(prompt, seed=seed)
            rows.append(Row(prompt, uncached, cached))
            bar.console.print(f"  {describe(cached):<44} {prompt}", soft_wrap=True)
            bar.advance(task)
    return rows


def describe(generation: Generation) -> str:
    similarity = "" if generation.similarity is None else f" similarity {generation.similarity:.2f}"
    skipped = f" skipped {generation.steps_skipped}/{generation.steps}" if generation.steps_skipped else ""
    return f"{generation.result.value}{similarity}{skipped}"


def print_table(rows: list[Row], console: Console) -> None:
    table = Table("result", "requests", "steps run", "seconds with cache", "seconds without", box=None)
    for result in (Result.EXACT, Result.APPROXIMATE, Result.MISS):
        of = [row for row in rows if row.cached.result is result]
        table.add_row(result.value, str(len(of)), *_sums(of))
    table.add_row("all", str(len(rows)), *_sums(rows))
    console.print(table)
    steps, skipped = sum(r.cached.steps for r in rows), sum(r.cached.steps_skipped for r in rows)
    with_cache = sum(r.cached.seconds["total"] for r in rows)
    without = sum(r.uncached.seconds["total"] for r in rows)
    console.print(
        f"Steps saved ratio (SSR): {skipped / steps:.1%} ({skipped} of {steps} steps). "
        f"Wall time of the session: {with_cache / without:.2f} of what the same prompts take with BYPASS."
    )


def _sums(rows: list[Row]) -> tuple[str, str, str]:
    run = sum(r.cached.steps - r.cached.steps_skipped for r in rows)
    return (
        f"{run} of {sum(r.cached.steps for r in rows)}",
        f"{sum(r.cached.seconds['total'] for r in rows):.1f}",
        f"{sum(r.uncached.seconds['total'] for r in rows):.1f}",
    )


CELL, MARGIN, TEXT = 128, 16, 330


def contact_sheet(rows: list[Row], parents: dict[str, Row]) -> Image.Image:
    """One row a request: uncached picture, cached picture, its parent's picture, and what it cost."""
    columns = [MARGIN + i * (CELL + MARGIN) for i in range(3)]
    head = 44
    sheet = Image.new("RGB", (columns[-1] + CELL + MARGIN + TEXT, head + len(rows) * (CELL + MARGIN)), "white")
    pen = ImageDraw.Draw(sheet)
    bold, plain = ImageFont.load_default(17), ImageFont.load_default(14)
    for x, title in zip(columns, ("without cache", "with cache", "resumed from"), strict=True):
        pen.text((x, 14), title, "black", bold)
    for i, row in enumerate(rows):
        y = head + i * (CELL + MARGIN)
        parent = parents.get(row.cached.parent_entry_id)
        pictures = [row.uncached, row.cached, *([parent.cached] if parent else [])]
        for x, generation in zip(columns, pictures, strict=False):
            picture = Image.open(io.BytesIO(generation.data)).convert("RGB")
            sheet.paste(picture.resize((CELL, CELL), Image.Resampling.LANCZOS), (x, y))
            pen.rectangle((x - 1, y - 1, x + CELL, y + CELL), outline="#dddddd")
        x = columns[-1] + CELL + MARGIN
        pen.text((x, y + 6), row.prompt, "black", bold)
        cached = row.cached
        similarity = "" if cached.similarity is None else f", similarity {cached.similarity:.3f}"
        pen.text((x, y + 34), f"{cached.result.value}{similarity}", "#1a7f37", plain)
        pen.text((x, y + 56), f"{cached.steps_skipped} of {cached.steps} steps saved", "#333333", plain)
        seconds = f"{cached.seconds['total']:.2f} s instead of {row.uncached.seconds['total']:.2f} s"
        pen.text((x, y + 78), seconds, "#333333", plain)
        if parent is not None and cached.result is Result.APPROXIMATE:
            pen.text((x, y + 100), f"from: {parent.prompt}", "#777777", plain)
    return sheet


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [int(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextmanager
def server(folder: Path, ports: list[int], console: Console) -> Iterator[None]:
    """`diffcache up` with an empty cache, ready when the block begins, gone when it ends."""
    options = zip(("--port", "--admin-port", "--metrics-port"), map(str, ports), strict=True)
    command = [sys.executable, "-m", "diffcache.main", "up", "-f", str(MANIFEST), "--data-dir", str(folder / "cache")]
    log = folder / "server.log"
    with log.open("w") as file:
        process = subprocess.Popen([*command, *(word for pair in options for word in pair)], stderr=file)
    try:
        with console.status("starting the server: it loads the model and Milvus Lite (10 to 30 s the first time)"):
            wait_until_ready(ports[0], process, log)
        console.print(f"server ready: bundled emoji model, 8 steps, gRPC on 127.0.0.1:{ports[0]}")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    with Client(f"127.0.0.1:{port}", retry_seconds=0) as client:
        while True:
            if process.poll() is not None:
                sys.exit(f"the server did not start:\n{log.read_text()}")
            try:
                client.generate("warm up", cache_mode=CacheMode.BYPASS, steps=1)
                return
            except GenerationError as error:
                if error.code != "UNAVAILABLE":
                    raise
                time.sleep(0.2)


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
