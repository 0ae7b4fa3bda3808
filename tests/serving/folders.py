"""Model folders of other shapes, made from the bundled model."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers

from diffcache_serving.engine.loading import BUNDLED

EMOJI_FOLDER = BUNDLED / "emoji"


def saved_again(folder: Path) -> Path:
    """A copy of the bundled model, without its levels."""
    return Path(shutil.copytree(EMOJI_FOLDER, folder, ignore=shutil.ignore_patterns("levels.json", "*.tsv", "*.md")))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes a JSON file in place."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def save_scheduler(folder: Path, author: str, **fields: Any) -> Any:
    """Makes `author` the class of the folder's scheduler, saved as that class saves itself; returns it.

    It has the noise schedule of the bundled model as far as the class can have it.
    """
    cls = getattr(diffusers, author)
    own = json.loads((EMOJI_FOLDER / "scheduler" / "scheduler_config.json").read_text())
    known = set(inspect.signature(cls.__init__).parameters)
    scheduler = cls(**{name: value for name, value in (own | fields).items() if name in known})
    shutil.rmtree(folder / "scheduler")
    scheduler.save_pretrained(folder / "scheduler")
    edit(folder / "model_index.json", lambda index: index.update(scheduler=["diffusers", author]))
    return scheduler
