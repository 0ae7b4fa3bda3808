"""A device that is lost while the server serves: nobody gets pictures from it any more, and the process ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from diffcache.wire import GenerationError
from diffcache_core.names import REASON_FILE_ENVIRONMENT
from diffcache_core.reasons import Reason, parse_termination_message
from tests.system.dying_server import SWITCH_ENVIRONMENT
from tests.system.serverprocess import ENVIRONMENT, ServerProcess, draw_small, serving_config, wait_for


def test_the_process_says_so_and_ends(tmp_path: Path) -> None:
    config = serving_config(tmp_path / "data")
    path, reason, switch = tmp_path / "config.json", tmp_path / "termination-log", tmp_path / "lost"
    path.write_text(config.model_dump_json())
    environment = ENVIRONMENT | {REASON_FILE_ENVIRONMENT: str(reason), SWITCH_ENVIRONMENT: str(switch)}
    command = [sys.executable, "-m", "tests.system.dying_server", "--config", str(path)]
    stderr = tmp_path / "stderr"
    with stderr.open("w") as file:
        process = subprocess.Popen(command, stderr=file, env=environment, cwd=Path(__file__).parents[2])
    with ServerProcess(process, config, stderr) as server, server.client() as client:
        server.wait_ready()
        draw_small(client, "red apple", seed=1)
        with server.watched_health() as seen:
            switch.touch()
            with pytest.raises(GenerationError) as caught:
                draw_small(client, "a green car", seed=2)
            wait_for("the health to fall", lambda: "NOT_SERVING" in seen)
        assert caught.value.code == "UNAVAILABLE"
        assert server.wait() == 1, server.stderr()
    told = parse_termination_message(reason.read_text())
    assert told is not None
    assert told[0] is Reason.DEVICE_FAILED
    assert "illegal memory access" in told[1]
    assert "Traceback" not in stderr.read_text()
