"""Fetching a model from a hub: whole or not at all, however it ends, and each failure says what to do."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest
import trustme

from diffcache_core.names import REASON_FILE_ENVIRONMENT
from diffcache_serving.engine.sources import BUNDLED, COMPLETE_MARKER, hub_folder
from tests.serving.hubserver import COMMIT, Hub, files_below, serving
from tests.system.conftest import MANIFEST
from tests.system.serverprocess import ENVIRONMENT, ServerProcess, Zygote, draw_small, serving_config, wait_for

REPO = "acme/emoji"
UNET = "unet/diffusion_pytorch_model.safetensors"
NOISE = {"README.md": b"#", "emoji.ckpt": b"x" * 99, "unet/diffusion_pytorch_model.fp16.safetensors": b"x" * 99}
FILES = files_below(BUNDLED / "emoji")
WANTED = {name: data for name, data in FILES.items() if name != "README.md"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub(REPO, FILES | NOISE)) as running:
        yield running


class Fetch:
    """A process that fetches, and what it leaves."""

    def __init__(
        self,
        tmp_path: Path,
        hub: Hub,
        source: str = REPO,
        revision: str = "",
        ca_file: Path | None = None,
        **environment: str,
    ) -> None:
        config = serving_config(tmp_path / "data", source=source)
        model = config.model.model_copy(update={"revision": revision, "ca_file": ca_file})
        config = config.model_copy(update={"model": model})
        self.config = config
        self.folder = hub_folder(config.data_dir, source, revision)
        self.reason_file, self._stderr = tmp_path / "reason", tmp_path / "fetch.stderr"
        path = tmp_path / "config.json"
        path.write_text(config.model_dump_json())
        environment = {"HF_ENDPOINT": hub.url, REASON_FILE_ENVIRONMENT: str(self.reason_file), **environment}
        base = {k: v for k, v in ENVIRONMENT.items() if not k.startswith("HF_")}
        with self._stderr.open("a") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "diffcache_serving.fetch", "--config", str(path)],
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                env=base | environment,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    def wait(self) -> int:
        return self.process.wait(60)

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.stderr.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def files(self) -> dict[str, bytes]:
        return {name: data for name, data in files_below(self.folder).items() if not name.startswith(".")}

    def assert_refused(self, *words: str) -> None:
        assert self.wait() == 2, self.stderr
        reason = self.reason_file.read_text()
        assert reason.startswith("DownloadFailed: model ")
        for word in words:
            assert word in reason
            assert word in self.stderr
        assert "Traceback" not in self.stderr
        assert not (self.folder / COMPLETE_MARKER).exists()


def test_a_model_is_fetched_once_and_served_without_a_network(zygote: Zygote, tmp_path: Path, hub: Hub) -> None:
    with Fetch(tmp_path, hub) as fetch:
        assert fetch.wait() == 0, fetch.stderr
        assert fetch.files() == WANTED
        assert (fetch.folder / COMPLETE_MARKER).read_text() == COMMIT + "\n"
        assert fetch.events("downloading")[0]["total_bytes"] == sum(map(len, WANTED.values()))
        assert not fetch.reason_file.exists()
    hub.url = "http://127.0.0.1:1"  # nobody listens there
    with Fetch(tmp_path, hub) as again:
        assert again.wait() == 0, again.stderr
    with ServerProcess.forked(zygote, fetch.config, tmp_path) as server, server.wait_ready().client() as client:
        assert draw_small(client, "red apple, noto style", seed=1).steps == 4
        assert server.metric("diffcache_build_info", model="emoji") == 1


@pytest.mark.slow  # imports torch in earnest: 8 s
def test_up_fetches_and_serves(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = tmp_path / "manifest.yaml"
    manifest.write_text(MANIFEST.read_text().replace("bundled://emoji", REPO))
    monkeypatch.setitem(ENVIRONMENT, "HF_ENDPOINT", hub.url)
    monkeypatch.setitem(ENVIRONMENT, "HF_HUB_OFFLINE", "0")
    with ServerProcess.up(manifest, serving_config(tmp_path / "data", index="Lite"), tmp_path) as server:
        with server.wait_ready().client() as client:
            assert draw_small(client, "red apple, noto style", seed=1).steps == 4
        assert server.stop() == 0


def test_a_killed_download_keeps_the_files_that_are_whole(tmp_path: Path, hub: Hub) -> None:
    hub.stall_in = UNET
    with Fetch(tmp_path, hub) as killed:
        assert hub.half_sent.wait(60)
        others = set(WANTED) - {UNET}
        wait_for("the other files", lambda: others <= set(killed.files()))
        killed.process.send_signal(signal.SIGKILL)
        killed.wait()
        assert UNET not in killed.files()
        assert not (killed.folder / COMPLETE_MARKER).exists()
    hub.stall_in = ""
    hub.downloads.clear()
    with Fetch(tmp_path, hub) as second:
        assert second.wait() == 0, second.stderr
        assert hub.downloads == [UNET]
        assert second.files() == WANTED
        assert not list(second.folder.rglob("*.incomplete"))


def test_a_branch_that_moved_between_two_runs_leaves_nothing_of_the_old_commit(tmp_path: Path, hub: Hub) -> None:
    hub.files["vae/old.json"] = b"{}"
    hub.stall_in = UNET
    with Fetch(tmp_path, hub) as killed:
        wait_for("a file of the old commit", lambda: "vae/old.json" in killed.files())
    hub.stall_in = ""
    del hub.files["vae/old.json"]
    hub.revisions["main"] = COMMIT[::-1]
    with Fetch(tmp_path, hub) as second:
        assert second.wait() == 0, second.stderr
        assert second.files() == WANTED
        assert (second.folder / COMPLETE_MARKER).read_text() == COMMIT[::-1] + "\n"


def test_of_two_at_once_the_second_waits(tmp_path: Path, hub: Hub) -> None:
    hub.stall_in = UNET
    with ExitStack() as stack:
        first = stack.enter_context(Fetch(tmp_path, hub))
        assert hub.half_sent.wait(60)
        second = stack.enter_context(Fetch(tmp_path, hub))
        wait_for("the second to say that it waits", lambda: "waiting for it" in second.stderr)
        hub.go_on.set()
        assert (first.wait(), second.wait()) == (0, 0)
    assert hub.downloads.count(UNET) == 1


def test_a_token_opens_a_gated_model(tmp_path: Path, hub: Hub) -> None:
    hub.token = "hf_secret"
    with Fetch(tmp_path, hub, HF_TOKEN="hf_secret") as fetch:
        assert fetch.wait() == 0, fetch.stderr
        assert "hf_secret" not in fetch.stderr


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((401, "GatedRepo"), ("is gated: accept its licence at", "spec.model.tokenSecretRef")),
        ((403, "GatedRepo"), ("is gated: accept its licence at", "spec.model.tokenSecretRef")),
        ((401, "RepoNotFound"), ("or it is private", "spec.model.tokenSecretRef")),
        ((403, ""), ("refuses access (403)", "to a valid token")),
    ],
    ids=str,
)
def test_without_access(tmp_path: Path, hub: Hub, refusal: tuple[int, str], words: tuple[str, ...]) -> None:
    hub.token, hub.refusal = "hf_secret", refusal
    with Fetch(tmp_path, hub) as fetch:
        fetch.assert_refused(REPO, *words)


def test_a_model_that_is_not_there(tmp_path: Path, hub: Hub) -> None:
    with Fetch(tmp_path, hub, source="acme/emojii") as fetch:
        fetch.assert_refused("there is no", "acme/emojii", "correct spec.model.source")


def test_a_revision_that_is_not_there(tmp_path: Path, hub: Hub) -> None:
    with Fetch(tmp_path, hub, revision="v9") as fetch:
        fetch.assert_refused("there is no revision v9", "correct spec.model.revision")


def test_a_revision_is_fetched_beside_another(tmp_path: Path, hub: Hub) -> None:
    hub.revisions["v1"] = COMMIT[::-1]
    for revision in ("", "v1"):
        with Fetch(tmp_path, hub, revision=revision) as fetch:
            assert fetch.wait() == 0, fetch.stderr
            assert fetch.files() == WANTED


def test_a_hub_that_cannot_be_reached(tmp_path: Path, hub: Hub) -> None:
    hub.url = "http://127.0.0.1:1"
    with Fetch(tmp_path, hub) as fetch:
        fetch.assert_refused("http://127.0.0.1:1 cannot be reached", "HF_ENDPOINT")


def test_a_pipeline_that_is_not_served_is_refused_before_its_weights_come(tmp_path: Path, hub: Hub) -> None:
    hub.files["model_index.json"] = b'{"_class_name": "FluxPipeline"}'
    with Fetch(tmp_path, hub) as fetch:
        assert fetch.wait() == 2
        assert fetch.reason_file.read_text().startswith(
            "ModelLoadFailed: model acme/emoji is a FluxPipeline; diffcache"
        )
    assert hub.downloads == ["model_index.json"]


def test_a_full_volume(tmp_path: Path, hub: Hub) -> None:
    disk = tmp_path / "data"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a size-limited folder needs the right to mount one: {mounted.stderr.strip()}")
    try:
        with Fetch(tmp_path, hub) as fetch:
            fetch.assert_refused("the volume is full", "spec.cache.spaceGraceSeconds")
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_nothing_is_written_outside_the_data_folder(tmp_path: Path, hub: Hub) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with Fetch(tmp_path, hub, HOME=str(home)) as fetch:
        assert fetch.wait() == 0, fetch.stderr
    assert list(home.iterdir()) == []


def test_a_mirror_behind_a_private_authority(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with serving(Hub(REPO, FILES | NOISE), context) as hub:
        with Fetch(tmp_path, hub) as fetch:
            fetch.assert_refused("cannot be reached", "certificate")
        with Fetch(tmp_path, hub, ca_file=tmp_path / "none.pem") as fetch:
            assert fetch.wait() == 2
            assert "model.caSecretRef" in fetch.reason_file.read_text()
        with Fetch(tmp_path, hub, ca_file=tmp_path / "ca.pem") as fetch:
            assert fetch.wait() == 0, fetch.stderr
            assert "model_index.json" in fetch.files()
