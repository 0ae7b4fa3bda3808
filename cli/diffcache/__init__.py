"""diffcache's client: pictures from a serving pod, and whether the cache helped.

>>> with diffcache.Client("localhost:50051") as client:  # doctest: +SKIP
...     client.generate("red apple, noto style", cache_mode="read_only").image.save("apple.png")
"""

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
