"""Downloads a model from a hub into the data folder: `python -m diffcache_serving.fetch --config FILE`.

In a pod it is an init container; on a laptop `diffcache up` runs it before the server. It may be killed at any time:
the next run keeps the complete files. A model that is already complete needs no network.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import structlog

from diffcache_core.choices import SourceKind
from diffcache_core.documents import read_json
from diffcache_core.serving_config import ModelConfig
from diffcache_serving.config_file import read_config_file
from diffcache_serving.engine.families.known import check_pipeline
from diffcache_serving.engine.families.stable_diffusion.files import parts_of
from diffcache_serving.engine.hub_files import choose_files
from diffcache_serving.engine.sources import COMPLETE_MARKER, MODEL_INDEX, hub_folder
from diffcache_serving.exit_reason import report_exit
from diffcache_serving.logs import configure_logs
from diffcache_serving.model_folders import FoldersLocked, lock_folders, unretire
from diffcache_serving.process_setup import exit_at_signals, keep_caches_in, trust
from diffcache_serving.values.errors import ModelError

PROGRESS_SECONDS = 5.0  # between two log lines: often enough to see progress, rare enough for a log

log = structlog.get_logger("diffcache.fetch")


def main() -> None:
    parser = argparse.ArgumentParser(prog="diffcache_serving.fetch", description="Fetch the model that a config names.")
    parser.add_argument("--config", type=Path, required=True, help="ServingConfig as JSON")
    arguments = parser.parse_args()
    exit_at_signals()
    configure_logs(json=not sys.stderr.isatty())
    try:
        config = read_config_file(arguments.config).config
        if SourceKind.of(config.model.source) is SourceKind.HUB:
            fetch(config.model, config.data_dir)
    except Exception as error:
        sys.exit(report_exit(error))


def fetch(model: ModelConfig, data_dir: Path) -> Path:
    """Downloads the model if it is not complete, and returns its folder.

    Raises DownloadFailed, ModelError if the model is not supported, or OSError if the folder cannot be written.
    """
    folder = hub_folder(data_dir, model.source, model.revision)
    if (folder / COMPLETE_MARKER).is_file():
        log.info("the model is here", model=model.source, folder=str(folder))
        return folder
    keep_caches_in(data_dir)
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # bars are for terminals
    os.environ["HF_HUB_OFFLINE"] = "0"  # overrides the user's shell, because this process has to download
    if model.ca_file is not None:
        trust(model.ca_file, data_dir)
    try:
        with lock_folders(data_dir, wait=False):
            _fetch_locked(model, folder)
    except FoldersLocked:
        log.info("another process downloads into this folder; waiting for it", folder=str(data_dir))
        with lock_folders(data_dir, wait=True):
            _fetch_locked(model, folder)
    return folder


def _fetch_locked(model: ModelConfig, folder: Path) -> None:
    from diffcache_serving.hub import Hub  # reads the environment when it is imported

    if (folder / COMPLETE_MARKER).is_file():  # the process that held the lock has downloaded it
        return
    folder.mkdir(parents=True, exist_ok=True)
    unretire(folder)
    for leftover in folder.rglob("*.incomplete"):  # from a killed run; no later run would continue them
        leftover.unlink()
    hub = Hub(model.source, model.revision)
    commit = hub.read_commit()
    sizes = hub.read_sizes(commit)
    if MODEL_INDEX not in sizes:
        raise ModelError(f"model {model.source} holds no {MODEL_INDEX}: choose one in diffusers' format")
    hub.download(commit, [MODEL_INDEX], folder)
    check_pipeline(model.source, folder)  # before gigabytes are downloaded in vain
    parts = parts_of(read_json(folder / MODEL_INDEX))
    wanted = {path: sizes[path] for path in choose_files(model.source, sizes, parts)}
    _remove_others(folder, wanted)
    with _Progress(model.source, folder, wanted):
        hub.download(commit, list(wanted), folder)
    hub.check(folder, wanted)
    _mark_complete(folder, wanted, commit)
    log.info("the model is complete", model=model.source, commit=commit, bytes=sum(wanted.values()))


def _remove_others(folder: Path, wanted: Mapping[str, int]) -> None:
    """Removes all files that are not wanted: if a branch has moved since a killed run, they would be loaded too."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(".") and name not in wanted:
            path.unlink()


def _mark_complete(folder: Path, wanted: Mapping[str, int], commit: str) -> None:
    """Writes the marker of a complete model. It first syncs all files to disk, so that they survive a power cut."""
    for name in wanted:
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
    marker = folder / COMPLETE_MARKER
    new = marker.with_suffix(".new")
    new.write_text(commit + "\n")
    new.rename(marker)


class _Progress:
    """Logs every few seconds how much is downloaded. It reads file sizes, so it does not depend on the downloader."""

    def __init__(self, source: str, folder: Path, wanted: Mapping[str, int]) -> None:
        self._source, self._folder, self._wanted = source, folder, wanted
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def _tell(self) -> None:
        total, started, first = sum(self._wanted.values()), time.monotonic(), self._done()
        log.info("downloading", model=self._source, done_bytes=first, total_bytes=total)
        while not self._ended.wait(PROGRESS_SECONDS):
            done = self._done()
            rate = (done - first) / (time.monotonic() - started)
            log.info(
                "downloading",
                model=self._source,
                done_bytes=done,
                total_bytes=total,
                percent=round(100 * done / max(1, total), 1),
                bytes_per_second=round(rate),
            )

    def _done(self) -> int:
        whole = [self._folder / name for name in self._wanted]
        return sum(map(_size, [*whole, *self._folder.rglob("*.incomplete")]))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # does not exist yet, or was renamed meanwhile
        return 0


if __name__ == "__main__":
    main()
