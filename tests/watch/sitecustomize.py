"""Imported by each Python process that a test starts, because this folder is on PYTHONPATH there."""

import os

if os.environ.get("LOOP_WATCH"):
    import loop_watch  # type: ignore[import-not-found]  # it lies beside this file

    loop_watch.install()
