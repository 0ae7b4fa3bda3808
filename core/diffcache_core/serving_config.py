"""The config of a serving process. The operator's ConfigMap and `diffcache up` use the same format."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from diffcache_core.cache.resume import Level, Levels
from diffcache_core.cache.states import StateKind
from diffcache_core.choices import DType, Scheduler, Scope, StoreType
from diffcache_core.names import ADMIN_PORT, GRPC_PORT, METRICS_PORT

REVISION_DIGITS = 12  # hexadecimal: enough to distinguish the revisions of one file, short enough for a label


class _Config(BaseModel):
    # A pod must start with the config of a newer operator, so unknown keys are ignored here and only here.
    model_config = ConfigDict(extra="ignore", frozen=True)


class ModelConfig(_Config):
    source: str
    revision: str = ""  # of a Hugging Face id; empty: main
    ca_file: Path | None = None  # PEM, for the hub's server
    scheduler: Scheduler
    dtype: DType
    steps: int | None  # None: the model's own default
    guidance: float | None
    width: int | None
    height: int | None
    max_pixels: int | None = None  # largest area of a request; None: a multiple of the model's own


class LevelConfig(_Config):
    skip_percent: int
    similarity: float


class StoreConfig(_Config):
    type: StoreType = StoreType.VOLUME
    bucket: str = ""  # this and the fields below are for S3; the credentials are in the environment, under AWS' names
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    ca_file: Path | None = None  # PEM


class LedgerConfig(_Config):
    address: str = ""  # redis://HOST:PORT/DATABASE; empty: SQLite in the data folder
    password_file: Path | None = None
    ca_file: Path | None = None  # PEM
    prefix: str = ""  # distinguishes caches on one Redis; empty: the cache's name


class QualityConfig(_Config):
    """What the process measures beside the requests, for the tuner."""

    shadow_percent: int = 0  # of the steps; 0: nothing is compared
    scorer: str = ""  # source of a CLIPModel's folder; empty: quality is not measured


class TuningConfig(_Config):
    revision: int = 0  # of the tuner's decision in `cache`; exported as diffcache_tuning_revision
    shadow_caches: bool = False  # simulate other capacities beside the requests
    chose_levels: bool = False  # `cache.levels` are the tuner's, not the manifest's


class CacheConfig(_Config):
    capacity_bytes: int
    max_entries: int
    state: StateKind
    scope: Scope
    levels: tuple[LevelConfig, ...] | None  # None: the model's own table
    store: StoreConfig = StoreConfig()
    ledger: LedgerConfig = LedgerConfig()

    @property
    def is_shared(self) -> bool:
        """True if other processes may write to the same ledger and store."""
        return bool(self.ledger.address)

    def level_table(self, reseed_skip_percent: int) -> Levels | None:
        """Returns the manifest's table of levels, with the model's limit for the same prompt with another seed; None:
        the model's own table holds."""
        if self.levels is None:
            return None
        return Levels(tuple(Level(v.skip_percent, v.similarity) for v in self.levels), reseed_skip_percent)


class IndexConfig(_Config):
    type: Literal[
        "Lite", "Standalone", "External", "Memory"
    ]  # Memory is for tests: it is filled from the ledger at start
    uri: str = ""
    database: str = ""  # empty: Milvus' default
    token_file: Path | None = None  # user:password or an API key
    ca_file: Path | None = None  # PEM


class ListenConfig(_Config):
    host: str = "127.0.0.1"
    port: int = GRPC_PORT
    admin_host: str = "127.0.0.1"
    admin_port: int = ADMIN_PORT
    metrics_host: str = "127.0.0.1"
    metrics_port: int = METRICS_PORT
    tls_certificate: str = ""  # PEM files; both or none
    tls_key: str = ""


class ServingConfig(_Config):
    name: str
    data_dir: Path
    model: ModelConfig
    batch_max_size: int
    queue_max_steps: int
    cache: CacheConfig
    index: IndexConfig
    listen: ListenConfig = ListenConfig()
    quality: QualityConfig = QualityConfig()
    tuning: TuningConfig = TuningConfig()
    require_cuda: bool = False  # without CUDA, end with the reason instead of serving on a CPU
    space_grace_seconds: int = 3600  # how long entries of an earlier model are kept
    drain_seconds: float = 25.0  # for requests in flight at SIGTERM; below Kubernetes' default grace of 30 s


def revision_of(file: bytes) -> str:
    """Returns the revision of a config file, a digest. Pods export it, and the operator waits for it."""
    return hashlib.sha256(file).hexdigest()[:REVISION_DIGITS]
