"""A startup probe that waits instead of failing.

The kubelet writes a warning event for each probe that fails, so a pod that loads its model for minutes would fill the
list of events at every start. This probe is one command that returns when the process answers, so it succeeds.
Meanwhile only the end of the process counts as failure.
"""

from __future__ import annotations

from diffcache_operator.metadata import JSON

PERIOD_SECONDS = 2  # between two tries of the command; a higher value makes a pod ready that much later
LOOK_SECONDS, LOOKS = 1200, 3
"""Seconds of one probe, and probes until the kubelet restarts the container: an hour in all, for a large model on a
slow disk. With less such a model would never load; with more a process that hangs is restarted later. There are several
probes, because a restart of the kubelet ends one."""


def startup_probe(*command: str) -> JSON:
    return {"exec": {"command": list(command)}, "timeoutSeconds": LOOK_SECONDS, "failureThreshold": LOOKS}


def until(condition: str) -> str:
    """Returns a shell command that waits for a condition."""
    return f"until {condition}; do sleep {PERIOD_SECONDS}; done"


def until_listening(port: int) -> str:
    """Returns a Python program that waits for a port: every serving image has Python, old or new."""
    return f"""import socket, time
while True:
    time.sleep({PERIOD_SECONDS})
    try:
        socket.create_connection(("localhost", {port}), 5).close()
        break
    except OSError:
        pass
"""
