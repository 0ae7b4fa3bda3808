"""Classifies errors of the device: too little memory, which is temporary, or a device that this process cannot use any
more."""

from __future__ import annotations

import torch

_PASSING = frozenset({1, 2, 9, 98, 209, 801})
"""CUDA error codes of a refused call that leaves the context usable: invalid value, memory, launch configuration,
function, kernel image, not supported. After any other error all later calls fail too, until the process ends."""

_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
"""Texts of out-of-memory errors for which torch does not raise OutOfMemoryError: from its CPU allocator, CUDA, cuBLAS
and cuDNN."""


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(t in str(error) for t in _OUT_OF_MEMORY)


def is_fatal(error: BaseException, device: torch.device) -> bool:
    """Returns whether `device` cannot be used any more. If the error alone does not tell, this calls the device."""
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
