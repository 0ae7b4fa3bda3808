"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from diffcache_serving.engine.loading import LoadedModel


def machine_facts(model: LoadedModel) -> dict[str, Any]:
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", ""),
        "load_average_at_start": [round(v, 2) for v in os.getloadavg()],
        "device": str(model.diffusion.device),
        "dtype": str(model.diffusion.dtype),
        "model": model.fingerprint,
        "levels": [asdict(level) for level in model.levels.table],
        "reseed_skip_percent": model.levels.reseed_skip_percent,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
