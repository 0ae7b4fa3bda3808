"""`zygote` forks serving processes, with torch imported; `server` is one of them for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.serverprocess import ServerProcess, Zygote, serving_config

MANIFEST = Path(__file__).parents[2] / "examples" / "quickstart.yaml"


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    with Zygote() as zygote:
        yield zygote


@pytest.fixture(scope="session")
def server(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """With Milvus Lite. Tests share it: each takes a tenant of its own."""
    folder = tmp_path_factory.mktemp("server")
    with ServerProcess.forked(zygote, serving_config(folder / "data", index="Lite"), folder) as server:
        yield server.wait_ready()
