"""`spec.model`: the diffusion model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictInt

from diffcache_core.choices import DType, Scheduler, SourceKind
from diffcache_core.generation import MAX_SIDE, MAX_STEPS
from diffcache_core.resource.pod import SecretKeyRef
from diffcache_core.resource.rules import Block, Change, Rule

_HUB_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+$"

Guidance = Annotated[
    str,
    Field(max_length=16),
    Rule.matches(
        r"^(([0-9]|[1-4][0-9])(\.[0-9]+)?|50(\.0+)?)$", 'must be a decimal from 0 to 50 in quotes, such as "7.5"'
    ),
]


def _is_hub_id(source: str) -> bool:
    return SourceKind.of(source) is SourceKind.HUB


class ModelSpec(Block):
    """The model that makes the pictures, and defaults of requests."""

    source: Annotated[
        str,
        Field(max_length=512),
        Rule.matches(
            rf"^(bundled://[a-z0-9-]+|file://.+|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/.+)?)$|{_HUB_PATTERN}",
            "must be bundled://emoji, a Hugging Face id such as stable-diffusion-v1-5/stable-diffusion-v1-5, "
            "pvc://CLAIM/FOLDER, or file:// and the path of a diffusers folder",
        ),
        Change.NEW_SPACE,
    ]
    """bundled://NAME, a Hugging Face id, pvc://CLAIM/FOLDER, or file://FOLDER in the image."""
    revision: (
        Annotated[
            str,
            Field(max_length=100),
            Rule.matches(r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", "must be a branch, a tag or a commit"),
            Change.NEW_SPACE,
        ]
        | None
    ) = None
    """Branch, tag or commit of a Hugging Face id; absent: main."""
    token_secret_ref: Annotated[SecretKeyRef, Change.ROLL] | None = None
    """Token for a gated Hugging Face id. Only the init container that downloads the model sees it."""
    ca_secret_ref: Annotated[SecretKeyRef, Change.ROLL] | None = None
    """PEM certificates of authorities that are trusted for a mirror of the hub, in addition to the usual ones."""
    scheduler: Annotated[Scheduler, Change.ROLL] = "DDIM"
    """How noise is removed. After a change, entries with state Clean stay usable; others are purged."""
    dtype: Annotated[DType, Change.NEW_SPACE] = DType.AUTO
    """Auto is Float16 on CUDA and Float32 on a CPU."""
    steps: Annotated[StrictInt, Field(ge=1, le=MAX_STEPS), Change.HOT] | None = None
    """Denoising steps of a request that names none; absent: 50."""
    guidance: Annotated[Guidance, Change.HOT] | None = None
    """Guidance scale of a request that names none; absent: 7.5."""
    width: Annotated[StrictInt, Field(ge=8, le=MAX_SIDE, multiple_of=8), Change.HOT] | None = None
    """Width in pixels of a request that names none; absent: the model's own."""
    height: Annotated[StrictInt, Field(ge=8, le=MAX_SIDE, multiple_of=8), Change.HOT] | None = None
    """Height in pixels of a request that names none; absent: the model's own."""
    max_pixels: Annotated[StrictInt, Field(ge=64, le=MAX_SIDE**2), Change.HOT] | None = None
    """Largest area of a picture, width times height; absent: 4 times the model's own."""
    rules = (
        Rule(
            "!has(self.maxPixels) || !has(self.width) || !has(self.height) || "
            "self.width * self.height <= self.maxPixels",
            "maxPixels must be at least width times height",
            lambda model: (
                None in (model.max_pixels, model.width, model.height) or model.width * model.height <= model.max_pixels
            ),
        ),
        Rule(
            "!has(self.revision) && !has(self.tokenSecretRef) && !has(self.caSecretRef) || "
            f"self.source.matches('{_HUB_PATTERN}')",
            "revision, tokenSecretRef and caSecretRef belong to a Hugging Face id: remove them for any other source",
            lambda model: (
                (model.revision is None and model.token_secret_ref is None and model.ca_secret_ref is None)
                or _is_hub_id(model.source)
            ),
        ),
    )
