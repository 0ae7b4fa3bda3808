"""The settings of OpenMP. Make them before torch is imported, because OpenMP reads them once."""

from __future__ import annotations

import os


def set_openmp_defaults(spare_cores: int) -> None:
    """Sets the variables that the environment does not set yet. Leaves `spare_cores` cores to other threads.

    Waiting threads sleep instead of spinning: spinning beside a busy process made a step 30 times slower (measured).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores - spare_cores)))
