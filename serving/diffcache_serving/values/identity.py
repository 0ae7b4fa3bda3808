"""The digests of a request: they say which requests may share states, and which requests are identical. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from diffcache_core.cache.space import Space, TrajectoryGrid, exact_digest, sha256_of_json
from diffcache_core.cache.states import StateKind
from diffcache_core.generation import GenerationRequest
from diffcache_serving.values.text import TextEncoding


@dataclass(frozen=True)
class CacheQuery:
    """A request, its encoding and its digests. It is computed once and used by all parts."""

    request: GenerationRequest
    text: TextEncoding
    space: str  # digest of everything that must match for a state to be usable
    exact: str  # digest of the whole request
    prompt: str  # digest of the prompt: identifies the same prompt without its text


@dataclass(frozen=True)
class CacheIdentity:
    """The values that all spaces of one serving process have in common."""

    model_name: str
    model: str  # fingerprint
    embedder: str
    dtype: str
    scheduler: str  # digest of its class and config
    shared: bool  # True if all tenants share the cache

    @property
    def model_id(self) -> str:
        """Returns NAME@FINGERPRINT of the model; each entry records it."""
        return f"{self.model_name}@{self.model}"

    def family(self, kind: StateKind) -> str:
        """Returns the digest of the values that all spaces of one process have in common.

        No state of another family fits a request of this process.
        """
        scheduler = self.scheduler if kind is StateKind.TRAJECTORY else ""
        return sha256_of_json([self.model, self.embedder, self.dtype, self.shared, kind, scheduler])

    def query(self, request: GenerationRequest, text: TextEncoding, kind: StateKind) -> CacheQuery:
        """Returns the query of a request to a cache that holds states of `kind`."""
        space = Space(
            tenant="" if self.shared else request.tenant,
            model=self.model,
            embedder=self.embedder,
            height=request.height,
            width=request.width,
            dtype=self.dtype,
            guidance=request.guidance,
            negative_prompt=text.negative_ids,
            grid=TrajectoryGrid(self.scheduler, request.steps) if kind is StateKind.TRAJECTORY else None,
        ).digest()
        exact = exact_digest(space, text.prompt_ids, request.seed, request.steps, self.scheduler)
        return CacheQuery(request, text, space, exact, sha256_of_json(text.prompt_ids))
