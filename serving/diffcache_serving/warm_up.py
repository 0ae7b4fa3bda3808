"""Draws the first picture of a process, before it serves."""

from __future__ import annotations

import asyncio

from diffcache_core.foreign import first_line
from diffcache_core.generation import CacheMode, GenerationRequest, ImageFormat, InvalidRequest
from diffcache_serving.engine.engine import Engine
from diffcache_serving.engine.loading import LoadedModel
from diffcache_serving.images import compress
from diffcache_serving.values.errors import DeviceOutOfMemory, ModelError, NotFinite
from diffcache_serving.values.found import Miss


async def warm_up(engine: Engine, model: LoadedModel) -> None:
    """Draws a picture with the default values of a request.

    So the first request is not slow, the memory is known to be sufficient, and a problem that would make every request
    fail is reported at once. Raises ModelError, or DeviceOutOfMemory.
    """
    defaults = model.defaults
    request = GenerationRequest(
        "warm up",
        0,
        True,
        defaults.steps,
        defaults.guidance,
        defaults.width,
        defaults.height,
        cache_mode=CacheMode.BYPASS,
    )
    try:
        text, _ = await engine.encode(request)
        if not text.has_key:
            raise ModelError(
                f"model {model.name}: its text encoder gives no key for a prompt, so nothing could ever be found: copy "
                "text_encoder and the folder diffcache again"
            )
        async with engine.run(request, text, Miss()) as run:
            image = await run.image()
    except (DeviceOutOfMemory, ModelError):
        raise
    except InvalidRequest as error:
        raise ModelError(f"spec.model: {error}") from None
    except NotFinite as error:
        raise ModelError(
            f"model {model.name}: in a first picture {error}: set spec.model.dtype to BFloat16 or Float32; if it is "
            "that already, the weights are damaged, or the scheduler's config does not fit them (zero terminal SNR "
            "needs v_prediction)"
        ) from None
    except Exception as error:  # parts that do not fit together may fail anywhere with any type of error
        raise ModelError(
            f"model {model.name} cannot draw a first picture ({first_line(error)}): its parts do not fit each other, "
            "copy the model again"
        ) from error
    for fmt in ImageFormat:  # Pillow imports each format's code at its first use
        await asyncio.to_thread(compress, image, fmt)
