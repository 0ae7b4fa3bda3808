"""An option that names a folder or a file is never empty: Python would take the current folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, get_args, get_type_hints

import pytest
from typer.models import OptionInfo

from diffcache.main import app
from diffcache.paths import named_path

Diffcache = Callable[..., CompletedProcess[str]]


def path_options() -> Iterator[tuple[str, str, OptionInfo]]:
    """Command, parameter and option of each that is a path."""
    for command in app.registered_commands:
        assert command.callback is not None
        hints: dict[str, Any] = get_type_hints(command.callback, include_extras=True)
        for name in inspect.signature(command.callback).parameters:
            kind, *extras = get_args(hints[name]) or (hints[name],)
            if kind is Path or Path in get_args(kind):
                (option,) = extras
                yield command.callback.__name__, name, option


def test_every_path_is_checked() -> None:
    options = list(path_options())
    assert {command for command, _, _ in options} == {"up", "generate", "calibrate", "render", "simulate_loops"}
    assert [(command, name) for command, name, option in options if option.parser is not named_path] == []


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["up", "-f", "examples/quickstart.yaml", "--data-dir", ""], "--data-dir"),
        (["up", "-f", ""], "--file"),
        (["up", "-f", "examples/quickstart.yaml", "--tls-certificate", "", "--tls-key", ""], "--tls-certificate"),
        (["generate", "cat", "-o", ""], "--image"),
        (["generate", "cat", "--ca", ""], "--ca-certificate"),
        (["calibrate", "--work-dir", ""], "--work-dir"),
        (["render", "-f", ""], "--file"),
        (["simulate-loops", "--arrivals", ""], "--arrivals"),
    ],
)
def test_an_empty_one_is_refused(words: list[str], option: str, diffcache: Diffcache) -> None:
    done = diffcache(*words)
    assert done.returncode == 2
    assert option in done.stderr
    assert "must not be empty" in done.stderr
