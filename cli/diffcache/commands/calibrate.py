"""diffcache calibrate"""

from __future__ import annotations

from typing import Annotated

import typer


def calibrate(
    model: Annotated[str, typer.Option(help="bundled://NAME, or file:// and a folder.")] = "bundled://emoji",
) -> None:
    """Measure what a model may skip, and write its levels."""
