"""OpenMP's settings, to be made before torch is imported: it reads them once."""

from __future__ import annotations

import os


def set_openmp_defaults(spare_cores: int) -> None:
    """What the environment does not say already. `spare_cores` are left to others.

    Waiting threads sleep instead of spinning: spinning beside a busy process made a step 30 times slower, measured.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores - spare_cores)))
