"""Every command that the README shows is run here, as it stands there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from diffcache_core.names import GRPC_PORT

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FENCES = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for language, text in FENCES if language == "console" for line in text.splitlines()]


@pytest.fixture(scope="module")
def readme_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`diffcache up` in the README's own words, on the default ports; only the user's data folder is another."""
    (line,) = [line for line in COMMANDS if " up " in line]
    command = line.replace(".venv/bin/diffcache", f"{sys.executable} -m diffcache.main").split()
    folder = tmp_path_factory.mktemp("home")
    log = folder / "log"
    with log.open("w") as file:
        environment = os.environ | {"XDG_DATA_HOME": str(folder)}
        process = subprocess.Popen(command, cwd=ROOT, stderr=file, env=environment)
    try:
        with grpc.insecure_channel(f"localhost:{GRPC_PORT}") as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=90)
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {line.split()[1] for line in COMMANDS if line.startswith("make ")}
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), target


def test_the_commands_and_the_python_example_work(readme_server: None, tmp_path: Path) -> None:
    """`diffcache up` was started by the fixture with the README's own words; its ports are the defaults."""
    shown = [line for line in COMMANDS if line.startswith(".venv/bin/diffcache ") and " up " not in line]
    assert len(shown) >= 5
    outputs = {}
    for line in shown:
        command = line.replace(".venv/bin/diffcache", f"{sys.executable} -m diffcache.main")
        done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        outputs[line] = done.stdout
    promised = re.search(r"second picture prints `(APPROXIMATE  similarity [\d.]+  skipped \d+/\d+ steps)`", README)
    assert promised is not None
    (second,) = [text for line, text in outputs.items() if "flat style" in line and "generate" in line]
    assert second.startswith(promised[1])
    (example,) = [text for language, text in FENCES if language == "python"]
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "apple.png").is_file()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(((?!http)[^)#]+)\)", README))))
def test_links_lead_somewhere(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_architecture_names_files_that_exist() -> None:
    rows = [row for row in (ROOT / "docs/architecture.md").read_text().splitlines() if row.startswith("| ")]
    paths = {path for row in rows for path in re.findall(r"`([\w./]+/[\w./]+)`", row)}
    assert len(paths) > 40
    assert not [path for path in sorted(paths) if not (ROOT / path).exists()]
