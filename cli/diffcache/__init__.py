"""The Python client of diffcache: it gets pictures from a server, and tells whether the cache helped.

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
    """Imports grpc only when it is needed. The command line first sets what grpc logs, and most commands do not need
    it."""
    if name in __all__:
        for module in map(import_module, _MODULES):
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'diffcache' has no attribute {name!r}")
