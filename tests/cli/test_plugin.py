"""`kubectl diffcache` with kubectl's recorded answers and a real server behind the port-forward."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psutil
import pytest

from diffcache.admin import AdminClient
from diffcache.cluster.table import COLUMNS
from diffcache.main import main
from diffcache_core.pb import diffcache_pb2 as pb

Diffcache = Callable[..., CompletedProcess[str]]
HERE = Path(__file__).parent


@pytest.fixture
def replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "replay"
    shutil.copytree(HERE / "recorded", folder)
    (folder / "ports").write_text("{}")
    monkeypatch.setenv("REPLAY", str(folder))
    monkeypatch.setenv("KUBECTL", f"{sys.executable} {HERE / 'replay_kubectl.py'}")
    return folder


@pytest.fixture
def pod(replay: Path, up: Any) -> Path:
    """The server of `up` stands for the one in the pod."""
    (replay / "ports").write_text(json.dumps({"50051": up.port, "50052": up.admin_port}))
    return replay


def calls(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def forwarder(folder: Path) -> int:
    return int((folder / "pid").read_text())


def ok(done: CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_name_it_is_called_by_chooses_the_commands(kubectl_diffcache: Diffcache, diffcache: Diffcache) -> None:
    cluster, local = ok(kubectl_diffcache("--help")), ok(diffcache("--help"))
    assert "Usage: kubectl diffcache [OPTIONS] COMMAND" in cluster
    assert "kubectl diffcache status emoji -n studio" in cluster  # an example
    for word in ("get", "status", "upgrade", "entries"):
        assert f"│ {word} " in cluster
        assert f"│ {word} " not in local
        assert "--context" in ok(kubectl_diffcache(word, "--help"))
    assert "│ up " in local
    assert "│ up " not in cluster
    assert ok(kubectl_diffcache("--version")) == ok(diffcache("--version"))


@pytest.mark.parametrize("called", ["/usr/bin/kubectl-diffcache", "kubectl-diffcache.exe"])
def test_the_program_s_path_and_ending_do_not_matter(
    called: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [called, "--help"])
    with pytest.raises(SystemExit):
        main()
    assert "Usage: kubectl diffcache" in capsys.readouterr().out


def test_get(replay: Path, kubectl_diffcache: Diffcache) -> None:
    head, line = ok(kubectl_diffcache("get", "emoji", "-n", "cli-a", "--context", "-x")).splitlines()
    assert tuple(head.split()) == COLUMNS
    assert line.split()[:6] == ["emoji", "True", "Serving", "0.271", "0.44", "120"]
    assert json.loads(ok(kubectl_diffcache("get", "emoji", "-o", "json")))["metadata"]["name"] == "emoji"
    (call, _) = calls(replay)
    assert call[:2] == ["--namespace=cli-a", "--context=-x"]
    assert call[-2:] == ["--", "emoji"]
    (replay / "diffusioncaches.json").write_text(json.dumps({"items": []}))
    assert "there is no DiffusionCache" in kubectl_diffcache("get", "-A").stderr


def test_status(replay: Path, kubectl_diffcache: Diffcache) -> None:
    assert "emoji in cli-a" in ok(kubectl_diffcache("status", "emoji"))
    (replay / "pods.err").write_text(
        'Error from server (Forbidden): pods is forbidden: User "jane" cannot list resource "pods"\n'
    )
    told = json.loads(ok(kubectl_diffcache("status", "emoji", "-o", "json")))
    assert "jane" in told["not_readable"]["pods"]
    unready = json.loads((replay / "diffusioncaches.json").read_text())
    unready["status"]["conditions"][0]["status"] = "False"
    (replay / "diffusioncaches.json").write_text(json.dumps(unready))
    assert kubectl_diffcache("status", "emoji").returncode == 1


def test_a_picture_from_a_pod(pod: Path, kubectl_diffcache: Diffcache, tmp_path: Path) -> None:
    image = tmp_path / "x.png"
    tenant = ("--tenant", "cluster")
    made = ok(kubectl_diffcache("generate", "emoji", "tiger, flat style", "-o", str(image), "--steps", "2", *tenant))
    assert made.startswith("MISS  skipped 0/2 steps")
    assert image.read_bytes().startswith(b"\x89PNG")
    assert calls(pod)[-1] == ["port-forward", "--address=127.0.0.1", "--", "pod/emoji-0", ":50051"]
    assert not psutil.pid_exists(forwarder(pod))
    like = ok(kubectl_diffcache("generate", "emoji", "tiger, noto style", "-o", str(image), "--explain", *tenant))
    if "APPROXIMATE" in like:
        assert "more about the parent: kubectl diffcache entry emoji " in like
    assert "steps saved" in ok(kubectl_diffcache("stats", "emoji"))
    entries = json.loads(ok(kubectl_diffcache("entries", "emoji", "--tenant", "cluster", "-o", "json")))
    assert "tiger, flat style" in ok(kubectl_diffcache("entry", "emoji", entries[-1]["id"]))
    assert f"purged {len(entries)} entries" in ok(kubectl_diffcache("purge", "emoji", "--tenant", "cluster"))
    gone = kubectl_diffcache("entry", "emoji", entries[0]["id"], "-n", "cli-a")
    assert (gone.returncode, "`kubectl diffcache entries emoji --namespace=cli-a`" in gone.stderr) == (1, True)
    assert not psutil.pid_exists(forwarder(pod))


def test_bad_options_are_named_as_by_the_local_commands(pod: Path, kubectl_diffcache: Diffcache) -> None:
    for words in (
        ["generate", "emoji", "cat", "-o", "x.gif"],
        ["purge", "emoji"],
        ["generate", "emoji", ""],
        ["stats", "a", "-o", "x"],
    ):
        done = kubectl_diffcache(*words)
        assert (done.returncode, "Traceback" in done.stderr, "Value error" in done.stderr) == (2, False, False)
        assert not psutil.pid_exists(forwarder(pod))
    assert "--server" not in ok(kubectl_diffcache("generate", "--help"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_port_forward_ends_with_the_command(number: signal.Signals, pod: Path, up: Any, tmp_path: Path) -> None:
    # As in a terminal: a shell in the background has its children ignore SIGINT.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from diffcache.main import main; main(program='kubectl-diffcache')"
    options = ["-o", str(tmp_path / "x.png"), "--steps", "900", "--mode", "bypass"]
    process = subprocess.Popen([sys.executable, "-c", code, "generate", "emoji", "ant", *options])
    with AdminClient(up.admin) as admin:
        while process.poll() is None and not admin.call("GetStats", pb.GetStatsRequest()).pending_steps:
            pass  # the picture has not begun
    forward = psutil.Process(forwarder(pod))
    process.send_signal(number)
    assert process.wait(30) != 0
    forward.wait(30)


def test_why_there_is_no_picture(replay: Path, kubectl_diffcache: Diffcache, free_ports: Any, tmp_path: Path) -> None:
    words = ("generate", "emoji", "cat", "-n", "cli-a", "-o", str(tmp_path / "x.png"))
    done = kubectl_diffcache(*words)
    assert (done.returncode, "pod is not running" in done.stderr) == (1, True)
    (replay / "ports").write_text(json.dumps({"50051": free_ports(1)[0]}))
    done = kubectl_diffcache(*words)
    assert done.returncode == 1
    assert "pod emoji-0 does not answer on port 50051" in done.stderr
    assert "`kubectl diffcache status emoji --namespace=cli-a`" in done.stderr
    (replay / "pods.json").write_text(json.dumps({"items": []}))
    assert "no pod of emoji is ready" in kubectl_diffcache(*words).stderr


def test_upgrade(replay: Path, kubectl_diffcache: Diffcache) -> None:
    recorded = json.loads((replay / "diffusioncaches.json").read_text())
    assert "is on its way to docker.io/diffcache/serving:0.2.0 already" in ok(kubectl_diffcache("upgrade", "emoji"))
    del recorded["metadata"]["annotations"]
    (replay / "diffusioncaches.json").write_text(json.dumps(recorded))
    done = ok(kubectl_diffcache("upgrade", "emoji"))
    assert "docker.io/diffcache/serving:0.1.0 -> docker.io/diffcache/serving:0.2.0" in done
    assert calls(replay)[-1][:4] == ["annotate", "--overwrite", "diffusioncaches.diffcache.io/emoji", "--"]
    assert calls(replay)[-1][4] == "diffcache.io/serving-image=docker.io/diffcache/serving:0.2.0"
    now = ok(kubectl_diffcache("upgrade", "emoji", "--image", "docker.io/diffcache/serving:0.1.0"))
    assert "runs docker.io/diffcache/serving:0.1.0 already" in now
    assert kubectl_diffcache("upgrade", "emoji", "--image", "a b").returncode == 2


def test_no_kubectl(monkeypatch: pytest.MonkeyPatch, kubectl_diffcache: Diffcache) -> None:
    monkeypatch.setenv("KUBECTL", os.devnull)
    done = kubectl_diffcache("get")
    assert (done.returncode, "install kubectl" in done.stderr) == (2, True)
    monkeypatch.setenv("KUBECTL", "echo")
    done = kubectl_diffcache("get")
    assert (done.returncode, "did not answer in JSON" in done.stderr) == (1, True)
