"""`python -m diffcache_serving`, whose device is lost when a file comes to be: every layer then fails as CUDA's do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from diffcache_serving.__main__ import main

SWITCH_ENVIRONMENT = "DYING_SERVER_SWITCH"


def check(module: Any, inputs: Any) -> None:
    if Path(os.environ[SWITCH_ENVIRONMENT]).exists():
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


if __name__ == "__main__":
    register_module_forward_pre_hook(check)
    main()
