"""What a person reads on a terminal when a server is ready."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from diffcache_core.cache.resume import Level, Levels
from diffcache_serving.banner import Standing, build_banner

MANIFEST = Path(__file__).parents[2] / "examples" / "quickstart.yaml"
LEVELS = Levels((Level(10, 0.65), Level(20, 0.75)), 10)


def standing(**changes: object) -> Standing:
    facts = {
        "version": "1.2.3",
        "model": "emoji",
        "source": "bundled://emoji",
        "device": "cpu",
        "levels": LEVELS,
        "levels_source": "model",
        "entries": 3,
        "data": "/data",
        "grpc": "127.0.0.1:50051",
        "admin": "127.0.0.1:50052",
        "metrics": "http://127.0.0.1:9095/metrics",
        "tls": False,
    }
    return Standing(**facts | changes)  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize(
    ("changes", "words", "absent"),
    [
        ({}, ["serves emoji on cpu", "10% from 0.65, 20% from 0.75 (measured"], ["--server", "--admin"]),
        ({}, ['  diffcache generate "red apple, noto style" -o a.png\n', "  diffcache stats\n", "Ctrl-C"], []),
        ({"levels_source": "manifest"}, ["(of the manifest)"], []),
        ({"levels_source": "tuner"}, ["(chosen by the tuner)"], []),
        ({"levels": Levels()}, ["none, so only EXACT", "diffcache calibrate --model bundled://emoji"], []),
        ({"source": "file:///m"}, ['"a red apple on a table"'], ["noto"]),
        ({"grpc": "0.0.0.0:7", "admin": "127.0.0.1:8"}, ["--server localhost:7", "--admin localhost:8"], []),
        ({"grpc": "[::1]:7"}, ["--server localhost:7"], []),
        ({"grpc": "10.1.2.3:50051"}, ["--server 10.1.2.3:50051"], []),
        ({"tls": True}, ["(gRPC, TLS)", "--tls -o"], []),
        ({"model": "\x1b[2J"}, ["serves \\x1b[2J on"], ["\x1b"]),
    ],
)
def test_it_says_what_where_and_what_to_try(changes: dict[str, object], words: list[str], absent: list[str]) -> None:
    banner = build_banner(standing(**changes))
    assert all(word in banner for word in words), banner
    assert not any(word in banner for word in absent), banner


def test_up_on_a_terminal(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> None:
    port, admin_port, metrics_port = free_ports(3)
    command = [sys.executable, "-m", "diffcache.main", "up", "-f", str(MANIFEST), "--data-dir", str(tmp_path / "data")]
    options = ["--port", str(port), "--admin-port", str(admin_port), "--metrics-port", str(metrics_port)]
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*command, *options], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    told = b""
    try:
        while b"the cache stays" not in told:
            assert select.select([ours], [], [], 90)[0], told
            told += os.read(ours, 65536)
    finally:
        process.terminate()
        process.wait(40)
        os.close(ours)
    text = told.decode().replace("\r\n", "\n")
    assert "Loading bundled://emoji" in text
    assert "serves emoji on cpu" in text
    assert f'diffcache generate "red apple, noto style" --server localhost:{port} -o a.png' in text
    assert f"http://127.0.0.1:{metrics_port}/metrics" in text
    assert "{" not in text, "no JSON for people"
    assert len(text.splitlines()) < 25
