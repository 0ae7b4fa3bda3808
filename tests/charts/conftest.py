from __future__ import annotations

import subprocess

import pytest

from tests.charts.helm import ROOT, Chart


@pytest.fixture(scope="session")
def chart() -> Chart:
    subprocess.run([ROOT / "tools/install-helm.sh"], check=True, timeout=600)
    return Chart()
