"""Where a model comes from: a claim, a hub, nowhere; and a GPU that the container cannot use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.kube import BIN, ROOT, Kube, cache, eventually, run
from tests.cluster.pods import claim, pod, secret, service, serving_pod

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

EMOJI = "/opt/diffcache/app/diffcache_serving/models/emoji"  # in the serving image
REPO, TOKEN = "someone/emoji", "hf_TheRightOne"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
GPU = "nvidia.com/gpu"

HUB = """
import hashlib, signal, sys
from pathlib import Path
sys.path.insert(0, "/hub")
import hubserver

folder, repo, token, revision, stall_in = sys.argv[1:]
files = hubserver.files_below(Path(folder))
if revision != "main":
    files["scheduler/scheduler_config.json"] += b" "  # and so it is another model
hub = hubserver.Hub(repo, files, {revision: hashlib.sha1(revision.encode()).hexdigest()}, token, stall_in=stall_in)

class Told(list):
    def append(self, path):
        print(path, flush=True)

hub.downloads = Told()

signal.signal(signal.SIGUSR1, lambda *_: hub.go_on.set())
hubserver._Server(("", 8000), type("Handler", (hubserver._Handler,), {"hub": hub})).serve_forever()
"""


def picture(inside: Kube, folder: Path, name: str = "emoji") -> str:
    """How a picture came about: the first word that is told about it."""
    file = folder / f"{name}.png"
    options = ("-n", inside.namespace, "--seed", "7", "-o", str(file))
    told = run([str(BIN / "kubectl"), "diffcache", "generate", name, "red apple, noto style", *options])
    assert file.read_bytes().startswith(b"\x89PNG")
    return told.split()[0]


def test_a_model_on_a_claim(operator: Kube, namespace: Kube, tmp_path: Path) -> None:
    volume = {"/models": {"persistentVolumeClaim": {"claimName": "models"}}}
    namespace.apply(claim("models"), pod("filler", "cp", "-r", EMOJI, "/models/", volumes=volume))
    namespace("wait", "pod/filler", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    namespace.apply(cache(model={"source": "pvc://models/emoji"}))
    namespace.wait_ready("emoji")
    assert picture(namespace, tmp_path) == "MISS"
    namespace.patch("diffusioncache", "emoji", {"spec": {"model": {"source": "pvc://models/nope"}}})
    told = namespace.wait_reason("emoji", "ModelLoadFailed")
    assert "pvc://models/nope" in told
    assert "holds no model_index.json" in told
    namespace.wait_reason("emoji", "ModelLoadFailed", "ModelReady")


def test_models_that_are_not_there(operator: Kube, namespace: Kube) -> None:
    namespace.apply(
        cache("bundled", model={"source": "bundled://nope"}), cache("claim", model={"source": "pvc://nope/emoji"})
    )
    told = namespace.wait_reason("bundled", "ModelLoadFailed")
    assert "bundled://nope" in told
    assert "bundled://emoji" in told  # which there is
    eventually(
        lambda: '"nope" not found' in (namespace.condition("claim", "Ready") or {})["message"], what="it is named"
    )


def test_a_model_of_a_gated_hub(operator: Kube, namespace: Kube, tmp_path: Path) -> None:
    """Fetched once, then served without the hub; another revision, at first with a token that is not let in."""
    start_hub(namespace, stall_in=WEIGHTS)
    model = {"source": REPO, "tokenSecretRef": {"name": "hub", "key": "token"}}
    endpoint = {"env": [{"name": "HF_ENDPOINT", "value": "http://hub:8000"}]}
    namespace.apply(secret("hub", token=TOKEN), cache(model=model, serving={"pod": endpoint}))
    assert REPO in namespace.wait_reason("emoji", "DownloadingModel")
    namespace("exec", "hub", "--", "python", "-c", "import os, signal; os.kill(1, signal.SIGUSR1)")
    namespace.wait_ready("emoji")
    assert picture(namespace, tmp_path) == "MISS"
    only_the_init_container_has_the_token(namespace)
    fetched = [path for path in namespace("logs", "hub").split() if path != WEIGHTS]  # which stalled: asked for again
    assert "model_index.json" in fetched
    assert len(fetched) == len(set(fetched)), "a file came twice"

    namespace("delete", "pod", "hub")
    old = serving_pod(namespace)["metadata"]["uid"]
    namespace("delete", "pod", "emoji-0")
    serving_pod(namespace, other_than=old)
    assert picture(namespace, tmp_path) == "EXACT"

    start_hub(namespace, revision="v2")
    namespace.apply(secret("hub", token="hf_AWrongOne"))
    namespace.patch("diffusioncache", "emoji", {"spec": {"model": {"revision": "v2"}}})
    told = namespace.wait_reason("emoji", "DownloadFailed")
    assert f"is gated: accept its licence at http://hub:8000/{REPO}" in told
    assert "tokenSecretRef" in told
    namespace.apply(secret("hub", token=TOKEN))
    namespace.wait_ready("emoji")
    assert picture(namespace, tmp_path) == "MISS"  # it is another model


def start_hub(inside: Kube, revision: str = "main", stall_in: str = "") -> None:
    """Serves the bundled model as REPO to whoever sends TOKEN, and logs what is downloaded."""
    programs = {"hubserver.py": (ROOT / "tests/serving/hubserver.py").read_text(), "main.py": HUB}
    inside.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hub"}, "data": programs},
        service("hub", 8000),
        pod(
            "hub",
            *("python", "/hub/main.py", EMOJI, REPO, TOKEN, revision, stall_in),
            volumes={"/hub": {"configMap": {"name": "hub"}}},
            readiness={"tcpSocket": {"port": 8000}},
        ),
    )
    inside("wait", "pod/hub", "--for=condition=Ready", "--timeout=60s")


def only_the_init_container_has_the_token(inside: Kube) -> None:
    spec = serving_pod(inside)["spec"]
    [init], [serving] = spec["initContainers"], spec["containers"]
    assert "HF_TOKEN" in [env["name"] for env in init["env"]]
    assert "HF_TOKEN" not in [env["name"] for env in serving["env"]]
    in_the_pod = ("exec", "emoji-0", "-c", "serving", "--")
    assert TOKEN not in inside(*in_the_pod, "cat", "/proc/1/environ")
    assert inside(*in_the_pod, "sh", "-c", f"grep -rlF {TOKEN} /var/lib/diffcache /tmp || true") == ""
    everything = inside.list("diffusioncache,statefulset,configmap,pod")
    assert TOKEN not in json.dumps([one for one in everything if one["metadata"]["name"] != "hub"])


@dataclass(frozen=True)
class FakeGpu:
    """One GPU on a node that has none: the scheduler believes in it, and no device plug-in does."""

    kube: Kube
    node: str

    def give(self) -> None:
        self._patch("1")
        eventually(lambda: GPU in self.kube.get("node", self.node)["status"]["allocatable"], 60)

    def take(self) -> None:
        """Twice does no harm."""
        self._patch(None)

    def _patch(self, count: str | None) -> None:
        status = {"capacity": {GPU: count}, "allocatable": {GPU: count}}
        self.kube.patch("node", self.node, {"status": status}, "--subresource=status")


@pytest.fixture
def fake_gpu(kube: Kube) -> Iterator[FakeGpu]:
    """Not there at first, and gone afterwards. Skips where a node really has GPUs."""
    nodes = kube.list("node")
    if any(GPU in node["status"]["capacity"] for node in nodes):
        pytest.skip(f"a node has {GPU}, real or of another test")
    fake = FakeGpu(kube, nodes[0]["metadata"]["name"])
    yield fake
    fake.take()


def test_a_gpu_that_the_container_cannot_use(operator: Kube, namespace: Kube, fake_gpu: FakeGpu) -> None:
    namespace.apply(cache(serving={"gpu": {"count": 1}}))
    assert GPU in namespace.wait_reason("emoji", "InsufficientGPU")
    fake_gpu.give()
    told = namespace.wait_reason("emoji", "CudaUnavailable")
    assert "spec.serving.gpu.count" in told
    namespace.wait_reason("emoji", "CudaUnavailable", "ModelReady")
    pod = namespace.get("pod", "emoji-0")
    assert {"key": GPU, "operator": "Exists", "effect": "NoSchedule"} in pod["spec"]["tolerations"]
    assert pod["spec"]["containers"][0]["resources"]["limits"][GPU] == "1"
    fake_gpu.take()
    namespace("delete", "pod", "emoji-0")
    assert GPU in namespace.wait_reason("emoji", "InsufficientGPU")
