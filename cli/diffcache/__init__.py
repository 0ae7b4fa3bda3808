"""diffcache's client: pictures from a serving pod, and whether the cache helped.

>>> with diffcache.Client("localhost:50051") as client:  # doctest: +SKIP
...     client.generate("red apple, noto style", cache_mode="read_only").image.save("apple.png")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffcache.client import AsyncClient, Client
    from diffcache.wire import Generation, GenerationError, Progress
    from diffcache_core.generation import CacheMode, ImageFormat, Result

__all__ = [
    "AsyncClient",
    "CacheMode",
    "Client",
    "Generation",
    "GenerationError",
    "ImageFormat",
    "Progress",
    "Result",
]

_MODULES = ("diffcache.client", "diffcache.wire", "diffcache_core.generation")


def __getattr__(name: str) -> Any:
    """Imports grpc when it is needed: the command sets what it logs before, and most commands do without it."""
    if name in __all__:
        for module in map(import_module, _MODULES):
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'diffcache' has no attribute {name!r}")
