"""The cluster's tests delete roles, namespaces and CRDs: they refuse a cluster that somebody may need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: none}}]
contexts: [{name: CONTEXT, context: {cluster: c, user: u}}]
current-context: CONTEXT
"""


@pytest.mark.parametrize("context", ["production", "my-kind-of-cluster", "gke_project_zone_kind-1"])
def test_a_context_that_does_not_look_thrown_away(context: str, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(KUBECONFIG.replace("CONTEXT", context))
    told = collect("--kubeconfig", str(kubeconfig))
    assert f"context '{context}' does not look like a throw-away cluster" in told


def test_no_cluster_at_all() -> None:
    assert "run `make test-cluster`" in collect()


def collect(*flags: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "cluster", "tests/cluster/test_crd.py", *flags]
    environment = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return done.stdout
