"""Forks serving processes from one that has imported torch already: a start in one second instead of eight.

Reads orders from standard input, one JSON object a line, and answers each with one line: `{"config", "stderr"}` forks
`python -m diffcache_serving --config CONFIG` with that standard error, answered by its process id; `{"poll": PID}` is
answered by its exit status as subprocess has it (negative: the signal), null while it runs.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import sys
from pathlib import Path

import diffusers

import diffcache_serving.server  # noqa: F401  # everything the serving process imports


def preload() -> None:
    """What diffusers and transformers import only when a model is loaded."""
    assert diffusers.StableDiffusionPipeline
    threads = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    others = set(threads) - {Path("/proc/self/comm").read_text().strip(), "jemalloc_bg_thd"}  # pyarrow's survives
    assert not others, f"none of these threads would exist after a fork: {threads}"


def poll(pid: int) -> int | None:
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def become_server(config: str, stderr: str) -> None:
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    error = os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(error, 2)
    os.close(null)
    os.close(error)
    sys.argv[1:] = ["--config", config]
    runpy.run_module("diffcache_serving", run_name="__main__", alter_sys=True)


def main() -> None:
    preload()
    gc.freeze()  # else each child walks, and so copies, all that was imported when it ends: 1.4 s, measured
    print("ready", flush=True)
    while line := sys.stdin.readline():
        order = json.loads(line)
        if "poll" in order:
            answer = poll(order["poll"])
        else:
            answer = os.fork()
            if answer == 0:
                become_server(order["config"], order["stderr"])
                return
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
