"""diffcache simulate-loops"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from diffcache.extras import need_modules
from diffcache.manifests import NameOption, read_manifest
from diffcache.output import bad_option, note, say
from diffcache.paths import named_path
from diffcache_core.os_errors import explain_os_error
from diffcache_core.resource.manifest import ManifestError, parse_manifest

if TYPE_CHECKING:
    from diffcache_core.resource.spec import DiffusionCacheSpec
    from diffcache_core.simulator.loops.cache import CacheSettings
    from diffcache_core.simulator.loops.simulation import Comparison, Row
    from diffcache_core.simulator.loops.stream import Arrivals, Stream

PLOT_ENDINGS = (".png", ".svg", ".pdf")
GZIP_MAGIC = b"\x1f\x8b"
SYNTHETIC_DAYS = 3
WINS, MISSES = "*", "!"
LOWEST_LEVEL = 0.4
"""The search leaves out similarities below this value, even if the manifest's tuning.minSimilarity is lower. Only start
levels that begin lower extend it."""

DEFAULT_MANIFEST = """\
apiVersion: diffcache.io/v1alpha1
kind: DiffusionCache
metadata: {name: simulated}
spec:
  model: {source: bundled://emoji}
  cache:
    capacity: 64Mi
    levels:
    - {skipPercent: 10, similarity: "0.65"}
    - {skipPercent: 20, similarity: "0.75"}
    - {skipPercent: 30, similarity: "0.85"}
    - {skipPercent: 40, similarity: "0.9"}
    - {skipPercent: 50, similarity: "0.95"}
    ledger: {type: Provisioned, provisioned: {}}
    store: {type: S3, s3: {bucket: states}}
  index: {type: Standalone, standalone: {}}
  tuning:
    mode: Auto
    quality: {targetPercent: 90, shadowPercent: 20}
    capacity: {min: 32Mi, max: 512Mi}
    minSimilarity: "0.4"
  autoscaling:
    mode: Operator
    minReplicas: 1
    maxReplicas: 20
    targetBacklogSeconds: 60
"""

Parsed = TypeVar("Parsed")


def simulate_loops(
    arrivals: Annotated[
        Path | None,
        typer.Option(parser=named_path, help="CSV with a column time (or gmt_create); default: three days made up."),
    ] = None,
    similarities: Annotated[
        Path | None,
        typer.Option(
            parser=named_path, help="CSV with columns prompt and similarity (or Queries and Scores); default: made up."
        ),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option("--file", "-f", parser=named_path, help="Manifest with the bounds; default: one of ours."),
    ] = None,
    name: NameOption = "",
    days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="Lay the days of the arrivals over so many: denser.")
    ] = None,
    requests_per_day: Annotated[int, typer.Option(min=1, max=10**6, help="Of made-up arrivals.")] = 3000,
    seconds_per_step: Annotated[
        float, typer.Option(min=1e-4, max=600, help="Measured on a pod, for one request alone.")
    ] = 1.0,
    batch: Annotated[int, typer.Option(min=1, max=64, help="Requests that a pod runs at once.")] = 4,
    batch_gain: Annotated[
        float, typer.Option(min=1, max=64, help="Measured throughput of a full batch over that of one.")
    ] = 1.3,
    start_up_seconds: Annotated[float, typer.Option(min=0, max=3600, help="From asking for a pod until ready.")] = 90,
    state_kib: Annotated[int, typer.Option(min=4, max=10**6, help="Size of one kept picture's state, KiB.")] = 64,
    quality_loss: Annotated[
        float, typer.Option(min=0, max=10, help="Of the assumed quality: 1 - loss x skip^1.5 x (1 - similarity).")
    ] = 1.4,
    seed: Annotated[int, typer.Option(min=0, help="Of everything made up.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", parser=named_path, help="Also draw what happened: PNG, SVG, PDF.")
    ] = None,
) -> None:
    """Run tuner and scaling over days in simulated time, beside others at the same p95.

    Takes about two minutes for 12,000 requests.
    """
    need_modules("simulating", ("numpy", *(("matplotlib",) if output is not None else ())))
    from diffcache_core.scaling import bounds_of
    from diffcache_core.simulator.loops.pods import Device
    from diffcache_core.simulator.loops.simulation import Setting, compare

    if batch_gain > batch:
        raise bad_option(f"a batch of {batch} cannot be more than {batch} times as fast", option="--batch-gain")
    if output is not None:
        output = _plot_file(output)
    spec = _spec(manifest, name)
    cache = _cache_settings(spec, state_kib * 1024, quality_loss)
    stream = _stream(arrivals, similarities, days, requests_per_day, cache, seed)
    setting = Setting(
        stream,
        cache,
        bounds_of(spec.autoscaling),
        Device(seconds_per_step, batch, batch_gain, start_up_seconds),
        seed,
    )
    comparison = compare(setting, lambda name: note(f"simulating: {name}"))
    _print(comparison, setting.stream)
    if output is not None:
        from diffcache.loops_plot import write_plot

        span = (stream.times[-1] - stream.times[0]) / 86400
        try:
            write_plot(output, comparison, f"{len(stream.times):,} requests in {span:.1f} days")
        except OSError as error:
            raise ManifestError(explain_os_error(error, output, "choose another file")) from None
        say(f"plot: {output}")


# ---- what is asked -------------------------------------------------------------------------------------------------


def _plot_file(path: Path) -> Path:
    path = path.expanduser().absolute()
    if path.suffix.lower() not in PLOT_ENDINGS or path.is_dir():
        wrong = f"{path}: must be a file whose name ends in one of {', '.join(PLOT_ENDINGS)}"
        raise bad_option(wrong, "--output")
    if not path.parent.is_dir():  # checked before the simulation, not after it
        raise bad_option(f"{path.parent} is no folder: make it, or choose another", "--output")
    return path


def _spec(path: Path | None, name: str) -> DiffusionCacheSpec:
    if path is None:
        return parse_manifest(DEFAULT_MANIFEST).spec
    return read_manifest(path, name).spec


def _cache_settings(spec: DiffusionCacheSpec, state_bytes: int, loss: float) -> CacheSettings:
    from diffcache_core.resource.spec import TuningMode
    from diffcache_core.simulator.loops.cache import CacheSettings, QualityCurve
    from diffcache_core.tuning.record import goals_of, in_force

    own = parse_manifest(DEFAULT_MANIFEST).spec
    first = in_force(spec, None, in_force(own, None, ()).levels)
    is_tuned = spec.tuning.mode is TuningMode.AUTO
    return CacheSettings(
        start=first,
        reseed_skip_percent=max((level.skip_percent for level in first.levels), default=0),
        state_bytes=state_bytes,
        quality=QualityCurve(loss=loss),
        shadow_percent=spec.tuning.quality.shadow_percent if is_tuned else 0,
        goals=goals_of(spec) if is_tuned else None,
    )


def _stream(
    arrivals: Path | None,
    similarities: Path | None,
    days: int | None,
    requests_per_day: int,
    cache: CacheSettings,
    seed: int,
) -> Stream:
    from diffcache_core.simulator.loops.stream import (
        logged_stream,
        read_arrivals,
        read_prompts,
        synthetic_arrivals,
        synthetic_stream,
    )

    lowest = [level.similarity for level in cache.start.levels]
    if cache.goals is not None:
        lowest.append(max(LOWEST_LEVEL, cache.goals.min_similarity))
    floor = min(lowest, default=1.0)
    came = None if arrivals is None else _read(arrivals, read_arrivals)
    log = None if similarities is None else _read(similarities, read_prompts)
    if came is None:
        came = synthetic_arrivals(days or SYNTHETIC_DAYS, requests_per_day, seed)
        if len(came.times) < 2:
            raise bad_option("that makes fewer than two requests", "--requests-per-day")
    came = came if log is None else _shortened(came, len(log.prompts))
    if arrivals is not None and days is not None:
        came = came.folded(days)
    if log is None:
        return synthetic_stream(came, floor, seed)
    return logged_stream(came, log, floor, seed)


def _shortened(arrivals: Arrivals, most: int) -> Arrivals:
    if len(arrivals.times) > most:
        note(f"{len(arrivals.times):,} arrivals, {most:,} prompts: the first {most:,} arrivals are used")
    return arrivals.first(most)


def _read(path: Path, parse: Callable[[io.StringIO, str], Parsed]) -> Parsed:
    """Reads a CSV, which may be compressed with gzip. Raises ManifestError."""
    from diffcache_core.simulator.loops.stream import StreamError

    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data.startswith(GZIP_MAGIC) else data).decode("utf-8-sig")
        return parse(io.StringIO(text, newline=""), str(path))
    except UnicodeDecodeError:
        raise ManifestError(f"{path} is not a text file in UTF-8, nor one compressed with gzip") from None
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise ManifestError(f"{path} is a damaged gzip file: get it again") from None
    except OSError as error:
        raise ManifestError(explain_os_error(error, path)) from None
    except StreamError as error:
        raise ManifestError(str(error)) from None


# ---- output --------------------------------------------------------------------------------------------------------


def _print(comparison: Comparison, stream: Stream) -> None:
    from diffcache.output import print_table, size
    from diffcache_core.simulator.loops.cache import describe_levels

    columns = (
        "",
        "device h",
        "p95 s",
        "pods",
        "changes",
        "device h at our p95",
        "p95 s",
        "ours there",
        "SSR",
        "quality",
    )
    ours = comparison.rows[0]
    print_table(columns, [_cells(row, ours) for row in comparison.rows])
    work = comparison.ours
    say(f"{WINS} fewer device hours than ours at its p95   {MISSES} cannot be as fast as ours")
    say(f"tuned: {describe_levels(work.tuning.levels)}; capacity {size(work.tuning.capacity_bytes)}")
    share = work.shadow_steps / work.steps if work.steps else 0.0
    say(f"{len(work.decisions)} decisions; comparisons took {share:.1%} of the steps, in idle time, not counted")
    for at, decision in work.decisions:
        say(f"  day {(at - stream.times[0]) / 86400:5.2f}  {decision.reason}: {decision.message}")


def _cells(row: Row, ours: Row) -> tuple[str, ...]:
    from diffcache_core.simulator.loops.simulation import EQUAL

    equal, there = row.at_equal_p95, row.ours_there
    wins = equal.device_hours < (ours.cost if there is None else there).device_hours
    misses = equal.p95_seconds > ours.cost.p95_seconds * EQUAL
    return (
        row.name,
        f"{row.cost.device_hours:.1f}",
        f"{row.cost.p95_seconds:.1f}",
        str(row.cost.most_replicas),
        str(row.cost.changes),
        f"{equal.device_hours:.1f}" + (f" {WINS}" if wins and not misses else ""),
        f"{equal.p95_seconds:.1f}" + (f" {MISSES}" if misses else ""),
        "" if there is None else f"{there.device_hours:.1f} ({there.p95_seconds:.1f} s)",
        f"{row.steps_saved_ratio:.3f}",
        "" if row.quality_ratio is None else f"{row.quality_ratio:.3f}",
    )
