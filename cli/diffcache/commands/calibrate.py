"""diffcache calibrate"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from diffcache.extras import need_modules
from diffcache.output import bad_option, console, note, say
from diffcache.paths import named_path
from diffcache_core.choices import Scheduler
from diffcache_core.generation import MAX_GUIDANCE, MAX_STEPS
from diffcache_core.os_errors import explain_os_error
from diffcache_core.resource.manifest import ManifestError

if TYPE_CHECKING:
    from diffcache_serving.calibration.findings import Findings

BUNDLED_SCORERS = {"bundled://emoji": "emoji-clip"}
PLOT_ENDINGS = (".png", ".svg", ".pdf")


def calibrate(
    model: Annotated[str, typer.Option(help="bundled://NAME, or file:// and a folder.")] = "bundled://emoji",
    scorer: Annotated[
        Path | None,
        typer.Option(parser=named_path, help="Folder of the CLIPModel that judges pictures; for bundled models known."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(parser=named_path, help="Lines of concept<TAB>prompt. Default: the model's own list.")
    ] = None,
    steps: Annotated[int, typer.Option(min=2, max=MAX_STEPS, help="The N you serve with.")] = 8,
    guidance: Annotated[float, typer.Option(min=0, max=MAX_GUIDANCE, help="The guidance you serve with.")] = 3.0,
    scheduler: Annotated[Scheduler, typer.Option(help="The scheduler you serve with.")] = "DDIM",
    alpha: Annotated[float, typer.Option(min=0.5, max=1, help="The share of quality that a level must keep.")] = 0.98,
    pairs: Annotated[
        int,
        typer.Option(min=2, help="Pairs in each bin of similarity, over both halves; below 20 no level is granted."),
    ] = 128,
    curve_prompts: Annotated[int, typer.Option(min=2, help="Prompts of the curve over N.")] = 64,
    chains: Annotated[int, typer.Option(min=2, help="Chains of resumes at each of the two largest levels.")] = 24,
    seed_prompts: Annotated[int, typer.Option(min=2, help="Prompts drawn under several seeds.")] = 12,
    work_dir: Annotated[
        Path | None,
        typer.Option(parser=named_path, help="Where measurements, report and plot go; run again to go on there."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(parser=named_path, help="Default: diffcache/levels.json in the model's folder.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(parser=named_path, help="Default: levels.png in --work-dir.")] = None,
    batch: Annotated[int, typer.Option(min=1, max=64, help="Pictures in one denoiser call.")] = 16,
) -> None:
    """Measure what a model may skip, and write its levels.

    Can be stopped and started again at any time. Takes about half an hour for the bundled model.
    """
    need_modules("calibrating", ("torch", "diffusers", "transformers", "matplotlib"))
    _prepare_for_torch()
    from diffcache_serving.calibration.calibrate import Task
    from diffcache_serving.calibration.calibrate import calibrate as run_calibration
    from diffcache_serving.calibration.findings import build_document, write_levels
    from diffcache_serving.calibration.plot import write_plot
    from diffcache_serving.calibration.report import build_report
    from diffcache_serving.calibration.settings import CalibrationError, Settings
    from diffcache_serving.engine.loading import DIFFCACHE_FOLDER, ModelError, model_folder

    try:
        folder = model_folder(model)
        work_dir = (work_dir or _default_work_dir(folder.name)).absolute()
        task = Task(
            model=model,
            scorer=_scorer_folder(model, scorer, folder),
            prompts=_prompts_file(prompts, folder / DIFFCACHE_FOLDER / "concepts.tsv"),
            work_dir=work_dir,
            settings=Settings(
                steps,
                guidance,
                scheduler,
                pairs_per_bin=pairs,
                curve_prompts=curve_prompts,
                reseed_prompts=seed_prompts,
                chains=chains,
            ),
            alpha=alpha,
            batch=batch,
        )
        output = _writable(output or folder / DIFFCACHE_FOLDER / "levels.json", "--output")
        plot = _writable(_plot_file(plot or work_dir / "levels.png"), "--plot")
        note(f"measurements in {work_dir}: stopping and running again goes on there")
        with _bar() as bar:
            findings = run_calibration(task, bar)
        report = build_report(findings)
        write_levels(output, build_document(findings))
        (work_dir / "report.md").write_text(report, encoding="utf-8")
        write_plot(plot, findings)
    except (CalibrationError, ModelError) as error:
        raise ManifestError(str(error)) from None
    except OSError as error:
        raise ManifestError(explain_os_error(error, work_dir or "the model's folder", "choose other paths")) from None
    say(report)
    say(_summary(findings, output, plot))


def _prepare_for_torch() -> None:
    """Prepares the environment. Call it before torch is imported, which reads the environment. Raises ManifestError."""
    from diffcache_serving.openmp import set_openmp_defaults
    from diffcache_serving.process_setup import check_allocator
    from diffcache_serving.values.errors import ConfigError

    set_openmp_defaults(spare_cores=0)
    try:
        check_allocator()
    except ConfigError as error:
        raise ManifestError(str(error)) from None


def _default_work_dir(name: str) -> Path:
    from diffcache.local import default_data_dir

    return default_data_dir(f"calibrate-{name}")


def _scorer_folder(model: str, scorer: Path | None, folder: Path) -> Path:
    if scorer is not None:
        return scorer.expanduser()
    if model not in BUNDLED_SCORERS:
        raise bad_option(
            f"{model} has no scorer of its own: give the folder of a CLIPModel that knows such pictures",
            option="--scorer",
        )
    return folder.parent / BUNDLED_SCORERS[model]


def _prompts_file(prompts: Path | None, default: Path) -> Path:
    if prompts is None and not default.is_file():
        raise bad_option(
            f"the model has no list of its own ({default}): give a file of lines concept<TAB>prompt",
            option="--prompts",
        )
    return default if prompts is None else prompts.expanduser()


def _writable(path: Path, option: str) -> Path:
    """Returns the absolute path. Checks before the measurements that it can be written; if not, raises BadParameter."""
    path = path.expanduser().absolute()
    if path.is_dir():
        raise bad_option(f"{path} is a folder: name a file in it", option)
    trial = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        trial.touch()  # permissions alone do not tell, because the file system may be read-only
        trial.unlink()
    except OSError as error:
        reason = f"{path} cannot be written ({error.strerror}): choose another file"
        raise bad_option(reason, option) from None
    return path


def _plot_file(path: Path) -> Path:
    if path.suffix.lower() not in PLOT_ENDINGS:
        raise bad_option(f"{path}: the name must end in one of {', '.join(PLOT_ENDINGS)}", "--plot")
    return path


class _Bar:
    """Shows the stages of a calibration, one below the other."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def stage(self, name: str, total: int, done: int) -> None:
        self._task = self._progress.add_task(name, total=total, completed=done)

    def advance(self, items: int) -> None:
        if self._task is not None:
            self._progress.advance(self._task, items)


@contextmanager
def _bar() -> Iterator[_Bar]:
    columns = (TextColumn("{task.description:14}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True)) as progress:
        yield _Bar(progress)


def _summary(findings: Findings, output: Path, plot: Path) -> str:
    levels = ", ".join(f"{v.skip_percent}% from {v.similarity:.2f}" for v in findings.fit.levels) or "none"
    return f"levels: {levels}\nwritten: {output}\nplot:    {plot}"
