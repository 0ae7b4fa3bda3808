"""Clients that nobody here wrote: grpcurl, grpc-health-probe, promtool and Prometheus itself."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.system.conftest import MANIFEST
from tests.system.serverprocess import ServerProcess, free_ports, serving_config, wait_for

pytestmark = pytest.mark.clients

INSTALLED = Path(__file__).parents[2] / "build" / "clients"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
REQUEST = {"prompt": "red apple, noto style", "seed": "7", "steps": 4, "width": 32, "height": 32}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("clients")
    with ServerProcess.up(MANIFEST, serving_config(folder / "data"), folder) as server:
        yield server.wait_ready()


def program(name: str) -> str:
    found = shutil.which(name, path=str(INSTALLED)) or shutil.which(name)
    assert found is not None, f"{name} is missing: run `make test-clients`, or tools/install-clients.sh"
    return found


def run(name: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [program(name), *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


def grpcurl(*arguments: str) -> str:
    """Its output; it learns the services from the server's reflection."""
    ran = run("grpcurl", "-plaintext", *arguments)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def call(address: str, method: str, message: dict[str, Any], *arguments: str) -> list[dict[str, Any]]:
    """Every message of the answer."""
    text, answers = grpcurl(*arguments, "-d", json.dumps(message), address, f"diffcache.v1.{method}"), []
    decoder = json.JSONDecoder()
    while text := text.strip():
        answer, end = decoder.raw_decode(text)
        answers.append(answer)
        text = text[end:]
    return answers


def picture(answer: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(answer["image"])))


class TestGrpcurl:
    def test_lists_the_services_of_each_port(self, server: ServerProcess) -> None:
        common = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
        assert set(grpcurl(server.target, "list").split()) == {"diffcache.v1.ImageGeneration"} | common
        assert set(grpcurl(server.admin_target, "list").split()) == {"diffcache.v1.CacheAdmin"} | common

    def test_describes_methods_and_messages(self, server: ServerProcess) -> None:
        service = grpcurl(server.target, "describe", "diffcache.v1.ImageGeneration")
        assert "rpc Generate ( .diffcache.v1.GenerateRequest ) returns ( .diffcache.v1.GenerateResponse );" in service
        assert "rpc GenerateStream" in service
        assert "optional uint64 seed = 3;" in grpcurl(server.target, "describe", "diffcache.v1.GenerateRequest")
        assert "rpc Purge" in grpcurl(server.admin_target, "describe", "diffcache.v1.CacheAdmin")

    def test_generates(self, server: ServerProcess) -> None:
        tenant = ("-H", "x-diffcache-tenant: grpcurl")
        (first,) = call(server.target, "ImageGeneration/Generate", REQUEST, *tenant)
        assert (first["result"], first["seed"], first["model"]) == ("RESULT_MISS", "7", "emoji")
        assert picture(first).size == (32, 32)
        (again,) = call(server.target, "ImageGeneration/Generate", REQUEST, *tenant)
        assert (again["result"], again["image"]) == ("RESULT_EXACT", first["image"])

    def test_streams(self, server: ServerProcess) -> None:
        tenant = ("-H", "x-diffcache-tenant: stream")
        *progress, last = call(server.target, "ImageGeneration/GenerateStream", {"request": REQUEST}, *tenant)
        assert [message["progress"]["step"] for message in progress if "step" in message["progress"]] == [1, 2, 3, 4]
        assert picture(last["generation"]).size == (32, 32)

    def test_shows_which_field_is_wrong(self, server: ServerProcess) -> None:
        message = json.dumps(REQUEST | {"steps": 0})
        ran = run("grpcurl", "-plaintext", "-d", message, server.target, "diffcache.v1.ImageGeneration/Generate")
        assert ran.returncode != 0
        assert "Code: InvalidArgument" in ran.stderr
        assert "google.rpc.BadRequest" in ran.stderr
        assert '"field": "steps"' in ran.stderr

    def test_lists_and_purges(self, server: ServerProcess) -> None:
        call(server.target, "ImageGeneration/Generate", REQUEST, "-H", "x-diffcache-tenant: purge")
        tenant = {"tenant": "purge"}
        (listed,) = call(server.admin_target, "CacheAdmin/ListEntries", tenant)
        assert [entry["prompt"] for entry in listed["entries"]] == [REQUEST["prompt"]]
        (purged,) = call(server.admin_target, "CacheAdmin/Purge", tenant)
        assert purged == {"entries": "1", "bytes": "4096"}
        assert call(server.admin_target, "CacheAdmin/ListEntries", tenant) == [{}]
        (stats,) = call(server.admin_target, "CacheAdmin/GetStats", {})
        assert stats["model"] == "emoji"


class TestHealthProbe:
    @pytest.mark.parametrize("service", ["", "diffcache.v1.ImageGeneration"])
    def test_says_serving(self, server: ServerProcess, service: str) -> None:
        ran = run("grpc-health-probe", f"-addr={server.target}", f"-service={service}")
        assert (ran.returncode, "SERVING" in ran.stderr) == (0, True), ran.stderr

    def test_says_serving_on_the_admin_port(self, server: ServerProcess) -> None:
        assert run("grpc-health-probe", f"-addr={server.admin_target}").returncode == 0

    def test_knows_no_other_service(self, server: ServerProcess) -> None:
        assert run("grpc-health-probe", f"-addr={server.target}", "-service=nobody").returncode == 3


class TestPrometheus:
    def test_promtool_has_no_complaint(self, server: ServerProcess) -> None:
        call(server.target, "ImageGeneration/Generate", REQUEST)
        ran = run("promtool", "check", "metrics", text=server.metrics_page())
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")

    def test_the_page_is_openmetrics_too(self, server: ServerProcess) -> None:
        page = server.metrics_page(OPENMETRICS)
        assert page.endswith("# EOF\n")
        families = {family.name: family for family in text_string_to_metric_families(page)}
        assert families["diffcache_requests"].type == "counter"
        assert all(family.documentation for family in families.values())

    def test_prometheus_scrapes_it(self, server: ServerProcess, tmp_path: Path) -> None:
        (port,) = free_ports(1)
        target = f"127.0.0.1:{server.config.listen.metrics_port}"
        config = tmp_path / "prometheus.yml"
        config.write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "1s"},
                    "scrape_configs": [{"job_name": "diffcache", "static_configs": [{"targets": [target]}]}],
                }
            )
        )
        assert run("promtool", "check", "config", str(config)).returncode == 0
        command = [program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )

        def samples(query: str) -> list[dict[str, Any]]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?query={query}", timeout=5) as answer:
                    found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
                    return found
            except OSError:
                return []  # it is not up yet

        try:
            wait_for("Prometheus to scrape", lambda: [s for s in samples("up") if s["value"][1] == "1"] or None)
            (info,) = wait_for("a sample of ours", lambda: samples("diffcache_build_info") or None)
            assert info["metric"]["model"] == "emoji"
        finally:
            process.terminate()
            process.wait(30)
