"""What a server, a cluster or a file says does not reach the terminal as it is: each command, each field."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from diffcache.main import explain
from diffcache_core.pb import diffcache_pb2 as pb
from diffcache_core.pb import diffcache_pb2_grpc as pb_grpc
from diffcache_core.resource.status import TuningStatus

Diffcache = Callable[..., CompletedProcess[str]]
HERE = Path(__file__).parent
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\x7f\x08\u202e"
"""Sets the window's title, wipes the screen, colours, goes back, deletes, turns the direction of writing."""


def assert_harmless(done: CompletedProcess[str]) -> None:
    for text in (done.stdout, done.stderr):
        assert text.replace("\n", "").isprintable(), repr(text)
        assert "Traceback" not in text


def fill(message: Message) -> Message:
    """Hostile text in every field of text, also of messages within."""
    for field in message.DESCRIPTOR.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            setattr(message, field.name, f"{field.name}{HOSTILE}")
        elif field.type == FieldDescriptor.TYPE_MESSAGE and field.is_repeated:
            fill(getattr(message, field.name).add())
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            fill(getattr(message, field.name))
    return message


RECORD = {
    "decision": HOSTILE,
    "capacity": HOSTILE,
    "levels": [{"skipPercent": 10, "similarity": HOSTILE}],
    "windowStart": HOSTILE,
    "history": [
        {
            "reason": HOSTILE,
            "message": HOSTILE,
            "time": HOSTILE,
            "inputs": {HOSTILE: HOSTILE},
            "revision": 1,
            "capacity": HOSTILE,
        }
    ],
}


class Server(pb_grpc.ImageGenerationServicer, pb_grpc.CacheAdminServicer):
    """Answers with hostile text everywhere, or fails with it."""

    def __init__(self) -> None:
        self.fails = False
        self.tuning = ""

    def _answer(self, message: Any, context: grpc.ServicerContext) -> Any:
        if self.fails:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{HOSTILE} http://me:hunter2@store/ is down")
        fill(message)
        if isinstance(message, pb.GenerateResponse):
            message.result, message.format, message.similarity = pb.RESULT_APPROXIMATE, pb.IMAGE_FORMAT_PNG, 0.9
        if isinstance(message, pb.GetStatsResponse):
            message.tuning = self.tuning
        return message

    def Generate(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer(pb.GenerateResponse(), context)

    def GenerateStream(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield pb.GenerateStreamResponse(progress=pb.Progress(step=1, steps=2))
        yield pb.GenerateStreamResponse(generation=self._answer(pb.GenerateResponse(), context))

    def GetStats(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer(pb.GetStatsResponse(), context)

    def ListEntries(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer(pb.ListEntriesResponse(total=2**40), context)

    def Purge(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer(pb.PurgeResponse(), context)


@pytest.fixture(scope="module")
def hostile() -> Iterator[tuple[Server, str]]:
    servicer, server = Server(), grpc.server(ThreadPoolExecutor(2))
    pb_grpc.add_ImageGenerationServicer_to_server(servicer, server)
    pb_grpc.add_CacheAdminServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(None).wait()


COMMANDS = (
    ["generate", "cat", "--explain"],
    ["generate", "cat", "--stream"],
    ["generate", "cat", "--output", "json"],
    ["stats"],
    ["stats", "-o", "json"],
    ["tuning"],
    ["tuning", "-o", "json"],
    ["cache", "ls"],
    ["cache", "ls", "-o", "json"],
    ["cache", "show", "e"],
    ["cache", "show", "e", "-o", "json"],
    ["cache", "purge", "--all"],
)


@pytest.mark.parametrize(
    ("command", "tuning"),
    [
        *((command, json.dumps(RECORD)) for command in COMMANDS),
        *((command, tuning) for command in (["stats"], ["tuning"]) for tuning in ("", HOSTILE, "[" * 100_000)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value[:2] or "none",
)
def test_of_a_server(
    command: list[str], tuning: str, hostile: tuple[Server, str], diffcache: Diffcache, tmp_path: Path
) -> None:
    servicer, address = hostile
    where = (
        ["--server", address, "--image", str(tmp_path / "x.png")] if command[0] == "generate" else ["--admin", address]
    )
    for servicer.fails in (False, True):
        servicer.tuning = tuning
        done = diffcache(*command, *where)
        assert_harmless(done)
        if servicer.fails:
            assert done.returncode == 1
            assert "\\x1b[2J" in done.stderr
            assert "hunter2" not in done.stderr
    TuningStatus.model_validate(RECORD)  # the record is one, hostile as it is


def test_of_a_server_on_a_terminal(
    hostile: tuple[Server, str], diffcache: Diffcache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own colours are there, and nothing of theirs."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    servicer, address = hostile
    servicer.fails, servicer.tuning = False, json.dumps(RECORD)
    for command in (["stats"], ["tuning"], ["cache", "ls"]):
        monkeypatch.delenv("NO_COLOR", raising=False)
        done = diffcache(*command, "--admin", address)
        monkeypatch.delenv("NO_COLOR", raising=False)
        assert done.returncode == 0
        for hidden in ("\x1b]", "\x1b[2J", "\x07", "\x9b", "\r", "\x7f", "\x08", "\u202e"):
            assert hidden not in done.stdout


PLAIN = ("apiVersion", "kind", "status", "phase", "name", "namespace", "uid", "component", "mode", "type")


def poison(value: Any, key: str = "") -> Any:
    """Hostile text in every text but times and what has to be understood."""
    if isinstance(value, dict):
        return {name: poison(part, name) for name, part in value.items()}
    if isinstance(value, list):
        return [poison(part, key) for part in value]
    is_plain = key in PLAIN or key.lower().endswith(("time", "timestamp")) or "/" in key
    return value + HOSTILE if isinstance(value, str) and not is_plain else value


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize(
    "command",
    [
        ["get"],
        ["get", "emoji"],
        ["get", "-A", "-o", "json"],
        ["status", "emoji"],
        ["status", "emoji", "-o", "json"],
        ["tuning", "emoji"],
        ["tuning", "emoji", "-o", "json"],
        ["upgrade", "emoji"],
        ["stats", "emoji"],
        ["entries", "emoji"],
    ],
    ids=" ".join,
)
def test_of_a_cluster(
    command: list[str],
    everywhere: bool,
    kubectl_diffcache: Diffcache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "replay"
    shutil.copytree(HERE / "recorded", folder)
    (folder / "ports").write_text("{}")
    monkeypatch.setenv("REPLAY", str(folder))
    monkeypatch.setenv("KUBECTL", f"{sys.executable} {HERE / 'replay_kubectl.py'}")
    for file in folder.glob("*.json"):
        answer = poison(json.loads(file.read_text()))
        if everywhere:  # also where the commands refuse it
            answer = json.loads(json.dumps(answer).replace('"True"', json.dumps("True" + HOSTILE)))
        if file.name == "diffusioncaches.json" and len(command) > 1 and command[1] == "emoji" and "items" in answer:
            answer = answer["items"][0]
        file.write_text(json.dumps(answer))
    assert_harmless(kubectl_diffcache(*command))
    for file in folder.glob("*.json"):
        file.with_suffix(".err").write_text(f'error: {HOSTILE} (Forbidden): User "{HOSTILE}" http://me:hunter2@host\n')
    done = kubectl_diffcache(*command)
    assert_harmless(done)
    assert done.returncode == 1
    assert "hunter2" not in done.stderr


def test_of_files_and_arguments(diffcache: Diffcache, tmp_path: Path) -> None:
    folder = tmp_path / f"dir{HOSTILE}"
    folder.mkdir()
    manifest = folder / "m.yaml"
    manifest.write_text(f"kind: DiffusionCache\nspec: {{{json.dumps(HOSTILE)}: 1, model: {json.dumps(HOSTILE)}}}\n")
    for words in (
        ["render", "-f", str(manifest)],
        ["render", "-f", str(manifest), "--name", HOSTILE],
        ["render", "-f", str(folder)],
        ["up", "-f", str(manifest)],
        ["simulate-loops", "-f", str(manifest)],
        ["simulate-loops", "-o", str(folder)],
        ["simulate-loops", "--arrivals", str(manifest)],
        ["calibrate", "--output", str(folder)],
        ["calibrate", "--plot", str(folder / "x")],
        ["generate", "cat", "-o", str(folder / "x")],
        ["generate", "cat", "-o", str(folder / "none" / "x.png")],
        ["generate", "cat", "--ca", str(folder)],
        ["generate", "cat", "--server", HOSTILE],
        ["cache", "show", HOSTILE, "--admin", HOSTILE],
        ["cache", "ls", "--limit", HOSTILE],
        [HOSTILE],
    ):
        done = diffcache(*words)
        assert_harmless(done)
        assert done.returncode in (1, 2)


def test_of_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(RuntimeError(f"{HOSTILE} http://me:hunter2@host")) == 1
    told = capsys.readouterr().err
    assert told.replace("\n", "").isprintable()
    assert "hunter2" not in told
