"""Which requests may share states, and which are one and the same: the digests of a request. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from diffcache_core.cache.space import Space, TrajectoryGrid, exact_digest, sha256_of_json
from diffcache_core.cache.states import StateKind
from diffcache_core.generation import GenerationRequest
from diffcache_serving.values.text import TextEncoding


@dataclass(frozen=True)
class CacheQuery:
    """A request, its encoding, and the digests that stand for them: computed once, for all who ask."""

    request: GenerationRequest
    text: TextEncoding
    space: str  # of all that must match for a state to be usable
    exact: str  # of the whole request
    prompt: str  # says "the same prompt" without the text


@dataclass(frozen=True)
class CacheIdentity:
    """What the spaces of one serving process have in common."""

    model_name: str
    model: str  # fingerprint
    embedder: str
    dtype: str
    scheduler: str  # digest of class and config
    shared: bool  # by all tenants

    @property
    def model_id(self) -> str:
        """Name and fingerprint: what an entry says it was made by."""
        return f"{self.model_name}@{self.model}"

    def family(self, kind: StateKind) -> str:
        """Digest of what all spaces of one process have in common: no state of another family fits a request here."""
        scheduler = self.scheduler if kind is StateKind.TRAJECTORY else ""
        return sha256_of_json([self.model, self.embedder, self.dtype, self.shared, kind, scheduler])

    def query(self, request: GenerationRequest, text: TextEncoding, kind: StateKind) -> CacheQuery:
        """What the cache is asked with for a request, by states of `kind`."""
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
