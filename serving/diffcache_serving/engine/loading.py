"""Loads a model folder as a pipeline onto a device. Errors say what is wrong with the folder."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from diffcache_core.cache.resume import Level, Levels
from diffcache_core.choices import DType
from diffcache_core.documents import read_json
from diffcache_core.foreign import first_line, quoted
from diffcache_core.serving_config import ModelConfig
from diffcache_serving.engine.diffusion_model import DiffusionModel
from diffcache_serving.engine.families.known import check_pipeline
from diffcache_serving.engine.families.stable_diffusion.load import load
from diffcache_serving.engine.fingerprint import fingerprint as fingerprint
from diffcache_serving.engine.sources import BUNDLED as BUNDLED
from diffcache_serving.engine.sources import DIFFCACHE_FOLDER as DIFFCACHE_FOLDER
from diffcache_serving.engine.sources import model_folder as model_folder
from diffcache_serving.engine.sources import model_name
from diffcache_serving.values.defaults import ModelDefaults, choose_defaults
from diffcache_serving.values.errors import CudaUnavailable
from diffcache_serving.values.errors import ModelError as ModelError
from diffcache_serving.values.identity import CacheIdentity

_DTYPES = {DType.FLOAT16: torch.float16, DType.BFLOAT16: torch.bfloat16, DType.FLOAT32: torch.float32}


@dataclass(frozen=True)
class LoadedModel:
    name: str
    folder: Path
    diffusion: DiffusionModel
    fingerprint: str  # digest of weights and configs
    embedder: str  # digest of everything that makes the keys
    levels: Levels
    levels_source: str  # "model" or "none"
    defaults: ModelDefaults

    def identity(self, *, shared: bool) -> CacheIdentity:
        """Returns what all spaces of this model have in common. With `shared`, all tenants share their states."""
        return CacheIdentity(
            model_name=self.name,
            model=self.fingerprint,
            embedder=self.embedder,
            dtype=str(self.diffusion.dtype).removeprefix("torch."),
            scheduler=self.diffusion.schedule(1, 0).digest,  # computed once, because a schedule takes 1 to 2 ms
            shared=shared,
        )

    @property
    def own_size(self) -> tuple[int, int]:
        """Returns (width, height) in pixels for which the model was made."""
        return self.diffusion.own_size

    @property
    def default_guidance(self) -> float:
        return self.defaults.guidance

    @property
    def default_size(self) -> tuple[int, int]:
        """Returns (width, height) in pixels."""
        return self.defaults.width, self.defaults.height


def load_model(config: ModelConfig, data_dir: Path | None = None) -> LoadedModel:
    """Loads the pipeline onto the GPU if CUDA is available, else onto the CPU.

    `data_dir` holds models from a hub. Raises ModelError, or DeviceOutOfMemory if the model does not fit onto the
    device.
    """
    folder = model_folder(config.source, config.revision, data_dir)
    device, dtype = choose_device(config.dtype)
    check_pipeline(config.source, folder)
    quiet_libraries()
    diffusion = load(config.source, folder, device, dtype, config.scheduler)
    levels, levels_source = load_levels(config.source, folder)
    try:
        weights = fingerprint(folder, data_dir)
    except OSError as error:
        raise ModelError(f"model {config.source}: {error.filename}: {error.strerror}: make it readable") from None
    return LoadedModel(
        name=model_name(config.source),
        folder=folder,
        diffusion=diffusion,
        fingerprint=weights,
        embedder=f"{weights}:{diffusion.embedder}",
        levels=levels,
        levels_source=levels_source,
        defaults=choose_defaults(config, diffusion.own_size, diffusion.size_multiple),
    )


def check_cuda() -> None:
    """Raises CudaUnavailable if CUDA cannot be used. The message contains the reason that torch gives."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return
    if torch.version.cuda is None:
        why, remedy = "this image's PyTorch is a build for CPUs", "use an image with CUDA in spec.serving.image"
    else:
        why = str(warned[0].message).splitlines()[0] if warned else "no GPU is visible to this container"
        remedy = "check the node's driver and device plug-in and spec.serving.pod.runtimeClassName"
    raise CudaUnavailable(
        f"a GPU is asked for and CUDA is not available ({why}): {remedy}, or set spec.serving.gpu.count to 0"
    )


def choose_device(dtype: DType) -> tuple[torch.device, torch.dtype]:
    """Returns CUDA and by default float16 if there is a GPU, else the CPU and by default float32."""
    cuda = torch.cuda.is_available()
    auto = torch.float16 if cuda else torch.float32
    return torch.device("cuda" if cuda else "cpu"), _DTYPES.get(dtype, auto)


def quiet_libraries() -> None:
    import diffusers
    import transformers

    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def load_levels(source: str, folder: Path) -> tuple[Levels, str]:
    """Returns the model's own levels and "model", or no levels and "none". Raises ModelError if they are damaged."""
    path = folder / DIFFCACHE_FOLDER / "levels.json"
    if not path.is_file():
        return Levels(), "none"
    try:
        return read_levels(path), "model"
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"model {source}: {path} is damaged ({first_line(error)}): run `diffcache calibrate` again"
        ) from None


def read_levels(path: Path) -> Levels:
    """Reads the table that `diffcache calibrate` wrote. Raises ValueError, KeyError or TypeError if it is damaged."""
    document = read_json(path)
    table = tuple(
        Level(_percent("skipPercent", v["skipPercent"], 1), _similarity(v["similarity"])) for v in document["levels"]
    )
    return Levels(table, _percent("reseedSkipPercent", document["reseedSkipPercent"], 0))


def _percent(name: str, value: object, lowest: int) -> int:
    """Returns a checked percentage, at most 99: with 100 a run would have no step left. Raises ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= 99:
        raise ValueError(f"{name} must be a whole number from {lowest} to 99, is {quoted(str(value), 40)}")
    return value


def _similarity(value: object) -> float:
    """Returns a checked cosine. 1.01 disables a level, because no prompt reaches it. Raises ValueError."""
    try:
        number = float(value) if isinstance(value, str | int | float) else float("nan")
    except (ValueError, OverflowError):
        number = float("nan")
    if not 0 <= number <= 1.01:  # NaN fails too
        raise ValueError(f"similarity must be from 0 to 1, is {quoted(str(value), 40)}")
    return number
