"""The operator as a process of the test, with the test's own way to the API server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.kube import ROOT


@dataclass
class OperatorProcess:
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def text(self) -> str:
        return self.log.read_text()

    def peak_memory(self) -> int:
        """Bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024


@contextmanager
def operator_process(
    kubeconfig: Path, folder: Path, namespace: str = "", **environment: str
) -> Iterator[OperatorProcess]:
    """Ends it with SIGTERM when left, unless it is gone already."""
    log = folder / f"operator-{len(list(folder.glob('operator-*.log')))}.log"
    # One name for all: the next one need not wait until the Lease of one that was killed has ended.
    chosen = {"KUBECONFIG": str(kubeconfig), "DIFFCACHE_WATCH_NAMESPACES": namespace, "DIFFCACHE_POD_NAME": "test"}
    chosen |= environment
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "diffcache_operator"],
            env={k: v for k, v in os.environ.items() if not k.startswith("KUBERNETES_")} | chosen,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )
    try:
        yield OperatorProcess(process, log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
