"""What an error of the device means: too little memory, which passes, or a device that is lost to this process."""

from __future__ import annotations

import torch

_PASSING = frozenset({1, 2, 9, 98, 209, 801})
"""CUDA's codes of a call that was refused and left the context alone: invalid value, memory, launch configuration,
function, kernel image, not supported. After any other one every later call fails as well, until the process ends."""

_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
"""How torch says it where it does not raise OutOfMemoryError: its CPU allocator, CUDA, cuBLAS and cuDNN."""


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(t in str(error) for t in _OUT_OF_MEMORY)


def is_fatal(error: BaseException, device: torch.device) -> bool:
    """Whether `device` answers nothing any more. Asks it, where the error alone does not say."""
    if is_out_of_memory(error):
        return False
    if isinstance(error, torch.AcceleratorError):
        return getattr(error, "error_code", None) not in _PASSING
    if device.type == "cuda" and isinstance(error, RuntimeError):
        try:
            torch.cuda.synchronize(device)
        except RuntimeError as answer:
            return not is_out_of_memory(answer)
    return False
