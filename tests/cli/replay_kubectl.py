"""Stands where kubectl stands: answers as a real one answered, and forwards to a server of this machine.

REPLAY is a folder: `RESOURCE.json` is the answer to `get RESOURCE`, `RESOURCE.err` what is said instead; `ports` says
which port here stands for which of the pod. Each call is noted in `calls`, the last port-forward's process in `pid`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

RESOURCES = ("diffusioncaches.diffcache.io", "pods", "persistentvolumeclaims", "events")


def main(words: list[str], folder: Path) -> int:
    with (folder / "calls").open("a") as calls:
        calls.write(json.dumps(words) + "\n")
    if "port-forward" in words:
        return _forward(words, folder)
    if "annotate" in words:
        return 0
    resource = next(word for word in words if word in RESOURCES).partition(".")[0]
    refusal = folder / f"{resource}.err"
    if refusal.exists():
        sys.stderr.write(refusal.read_text())
        return 1
    sys.stdout.write((folder / f"{resource}.json").read_text())
    return 0


def _forward(words: list[str], folder: Path) -> int:
    port = words[-1].removeprefix(":")
    here = json.loads((folder / "ports").read_text()).get(port)
    if here is None:
        sys.stderr.write("error: unable to forward port because pod is not running. Current status=Pending\n")
        return 1
    (folder / "pid").write_text(str(os.getpid()))
    print(f"Forwarding from 127.0.0.1:{here} -> {port}", flush=True)
    signal.pause()  # until it is told to end
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(os.environ["REPLAY"])))
