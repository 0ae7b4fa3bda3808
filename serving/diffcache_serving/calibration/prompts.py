"""Reads the prompts of a calibration: the concepts and their wordings.

The file is UTF-8 text with two columns, `concept<TAB>text`. Empty lines and lines that begin with # are skipped. The
first line says what the second column is:

    # concept<TAB>tags      words that belong to the concept, as in the bundled model's list: prompts are made of them
    # concept<TAB>prompt    (or no such line) a whole prompt, used as it is; a concept may have several lines

The statistics resample concepts, and concepts are split into halves. So prompts about the same thing must have the same
concept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffcache_core.os_errors import explain_os_error
from diffcache_serving.calibration.settings import CalibrationError

TAGS_HEADER = "# concept<tab>tags"
STYLES = ("noto style", "flat style")  # the styles of the bundled model's training
TAGS_USED = 2  # tags of a concept in one prompt, as in the model's training captions

MIN_CONCEPTS = 20  # ten per half: with fewer, a bootstrap over concepts is meaningless
MAX_PROMPTS = 4000  # each needs a key, about 5 ms on a laptop CPU; more prompts give no new similarities


@dataclass(frozen=True)
class Prompt:
    concept: str
    text: str


@dataclass(frozen=True)
class PromptList:
    prompts: tuple[Prompt, ...]
    digest: str  # sha256 of the file


def read_prompts(path: Path, rng: np.random.Generator) -> PromptList:
    """Reads the prompts. `rng` chooses tags, and the prompts to leave out beyond MAX_PROMPTS.

    Raises CalibrationError with the file, the line and what to do.
    """
    try:
        data = path.read_bytes()
        lines = data.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise CalibrationError(f"--prompts {explain_os_error(error, path)}") from None
    except UnicodeDecodeError:
        raise CalibrationError(f"--prompts {path} is not a text file in UTF-8") from None
    rows = list(_rows(path, lines))
    has_tags = any(_is_tags_header(line) for line in lines[:1])
    prompts = [prompt for row in rows for prompt in (_forms(row, rng) if has_tags else (row,))]
    prompts = list({prompt.text: prompt for prompt in prompts}.values())  # removes duplicates
    concepts = {prompt.concept for prompt in prompts}
    if len(concepts) < MIN_CONCEPTS:
        raise CalibrationError(
            f"--prompts {path}: needs at least {MIN_CONCEPTS} concepts (the first column), has {len(concepts)}"
        )
    if len(prompts) > MAX_PROMPTS:
        prompts = [prompts[i] for i in sorted(rng.choice(len(prompts), MAX_PROMPTS, replace=False))]
    return PromptList(tuple(prompts), hashlib.sha256(data).hexdigest())


def _is_tags_header(line: str) -> bool:
    return line.lower().replace("\t", "<tab>").startswith(TAGS_HEADER)


def _rows(path: Path, lines: list[str]) -> Iterator[Prompt]:
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        concept, tab, text = (part.strip() for part in line.partition("\t"))
        if not concept or not text:
            reason = "has no tab" if not tab and "\t" not in line else "has an empty column"
            raise CalibrationError(f"--prompts {path}: line {number} {reason}: write concept<TAB>text")
        yield Prompt(concept, text)


def _forms(row: Prompt, rng: np.random.Generator) -> Iterator[Prompt]:
    """Yields the wordings of one concept that the bundled model knows (see its card), each in both styles."""
    tags = [tag.strip() for tag in row.text.split(",") if tag.strip()]
    chosen = rng.permutation(tags)[:TAGS_USED].tolist()
    for words in (row.concept, f"a {row.concept}", ", ".join([row.concept, *chosen])):
        for style in STYLES:
            yield Prompt(row.concept, f"{words}, {style}")
