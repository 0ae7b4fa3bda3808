"""A startup probe that waits instead of failing.

The kubelet writes a warning event for each look that fails, so a pod that loads its model for minutes would fill the
list of events at every start. A command that returns when the process answers is one look, and it succeeds. Meanwhile
only the process's own end counts as failure, as it should.
"""

from __future__ import annotations

from diffcache_operator.metadata import JSON

PERIOD_SECONDS = 2  # between two tries of the command; more makes a pod ready that much later
LOOK_SECONDS, LOOKS = 1200, 3
"""An hour in all, for a large model on a slow disk. Then the kubelet restarts the container, so less would never let it
get there; more is how long one that hangs is left hanging. Several looks, since a kubelet that restarts ends one."""


def startup_probe(*command: str) -> JSON:
    return {"exec": {"command": list(command)}, "timeoutSeconds": LOOK_SECONDS, "failureThreshold": LOOKS}


def until(condition: str) -> str:
    """Of a shell."""
    return f"until {condition}; do sleep {PERIOD_SECONDS}; done"


def until_listening(port: int) -> str:
    """For Python, which a serving image has, old or new."""
    return f"""import socket, time
while True:
    time.sleep({PERIOD_SECONDS})
    try:
        socket.create_connection(("localhost", {port}), 5).close()
        break
    except OSError:
        pass
"""
