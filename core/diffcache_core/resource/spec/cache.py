"""`spec.cache`: what is kept, where it is recorded, and from which similarity on requests resume from it."""

from __future__ import annotations

import itertools
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StrictInt

from diffcache_core.cache.states import StateKind
from diffcache_core.choices import Scope, StoreType
from diffcache_core.quantities import bytes_of
from diffcache_core.resource.pod import LocalObjectRef, Placement, SecretKeyRef, Text
from diffcache_core.resource.rules import Block, Change, Rule, UniqueBy
from diffcache_core.resource.spec.values import (
    Quantity,
    Resources,
    Similarity,
    VolumeSpec,
    without_password,
    without_user,
)


class LedgerType(StrEnum):
    EMBEDDED = "Embedded"  # SQLite on the pod's volume
    PROVISIONED = "Provisioned"  # the cache's own Redis, beside the pods
    EXTERNAL = "External"  # a Redis or Valkey that the operator does not manage


class LevelSpec(Block):
    """A level: from this similarity on, this percentage of the steps may be skipped."""

    skip_percent: Annotated[StrictInt, Field(ge=1, le=99)]
    """Percentage of the steps that may be skipped."""
    similarity: Similarity
    """Lowest cosine similarity for this level."""


_RISING = (
    "from each level to the next higher skipPercent the similarity must not fall: a larger skip needs a closer prompt"
)


def _levels_rise(levels: list[Any]) -> bool:
    rising = sorted(levels, key=lambda level: level.skip_percent)
    return all(float(low.similarity) <= float(high.similarity) for low, high in itertools.pairwise(rising))


class S3Spec(Block):
    """A bucket of S3 or of a service with its protocol."""

    bucket: Annotated[
        str,
        Field(max_length=63),
        Rule.matches(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", "must be the name of a bucket, such as my-states"),
        Change.IMMUTABLE,
    ]
    """Name of the bucket, which must exist."""
    prefix: Annotated[
        str,
        Field(max_length=256),
        Rule.matches(r"^([A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*)?$", "must be a path without slashes at its ends"),
        Change.IMMUTABLE,
    ] = ""
    """Folder in the bucket; the cache's states are in a subfolder of it."""
    endpoint: (
        Annotated[
            str,
            Field(max_length=512),
            without_user("name a Secret in credentialsSecretRef instead"),
            Rule.matches(r"^https?://[^\s/?#]+/?$", "must be the address of an S3 service, such as http://minio:9000"),
            Change.ROLL,
        ]
        | None
    ) = None
    """Address of the S3 service; absent: Amazon's for the region."""
    region: Annotated[str, Field(min_length=1, max_length=64), Change.ROLL] = "us-east-1"
    """Region of the bucket; most services other than Amazon's accept any."""
    credentials_secret_ref: Annotated[LocalObjectRef, Change.ROLL] | None = None
    """A Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; absent: the pod's own identity in the cloud."""
    ca_secret_ref: Annotated[SecretKeyRef, Change.ROLL] | None = None
    """PEM certificates of authorities that are trusted for the service, in addition to the usual ones."""
    rules = (
        Rule(
            "!has(self.caSecretRef) || !has(self.endpoint) || self.endpoint.startsWith('https://')",
            "caSecretRef needs an endpoint that begins with https://",
            lambda s3: s3.ca_secret_ref is None or (s3.endpoint or "https://").startswith("https://"),
        ),
    )


class StoreSpec(Block):
    """Where the bytes of states are stored."""

    type: Annotated[StoreType, Change.IMMUTABLE] = StoreType.VOLUME
    """Where states are stored: Volume is a volume of the pod, S3 a bucket."""
    volume: VolumeSpec = VolumeSpec()
    """The volume of each pod: for states (Volume), the ledger (Embedded), the index (Lite) and downloaded models."""
    s3: S3Spec | None = None
    rules = (
        Rule(
            "has(self.s3) == (self.type == 'S3')",
            "set s3: {bucket: NAME} exactly when type is S3",
            lambda store: (store.s3 is not None) == (store.type is StoreType.S3),
        ),
    )


class LedgerVolumeSpec(VolumeSpec):
    """The volume of the Redis."""

    size: Annotated[Quantity, Change.GROW] = "1Gi"
    """Size of the volume; a larger one expands it, where its StorageClass can."""


class ProvisionedLedgerSpec(Block):
    """A Redis for this cache alone, beside its pods."""

    image: Annotated[Text, Field(min_length=1), Change.ROLL] | None = None
    """Image of Redis; absent: the running one, at first the operator's default."""
    resources: Annotated[Resources, Change.ROLL] = Resources()
    """Requests and limits of the Redis container."""
    pod: Annotated[Placement, Change.ROLL] = Placement()
    """Nodes, user, labels and further options of Redis' pod; an absent field is as in serving.pod."""
    volume: LedgerVolumeSpec = LedgerVolumeSpec()


class ExternalLedgerSpec(Block):
    """A Redis or Valkey that you run."""

    address: Annotated[
        str,
        Field(max_length=512),
        without_password("name a Secret in passwordSecretRef instead"),
        Rule.matches(
            r"^rediss?://[^\s/?#]+(/([0-9]{1,3})?)?$",
            "must be the address of a Redis or Valkey, such as redis://redis:6379",
        ),
        Change.ROLL,
    ]
    """Address of the Redis: redis://HOST:PORT/DATABASE, or rediss:// for TLS."""
    password_secret_ref: Annotated[SecretKeyRef, Change.ROLL] | None = None
    """Password of the Redis."""
    ca_secret_ref: Annotated[SecretKeyRef, Change.ROLL] | None = None
    """PEM certificates of the authorities that are trusted for the server."""
    rules = (
        Rule(
            "!has(self.caSecretRef) || self.address.startsWith('rediss://')",
            "caSecretRef needs an address that begins with rediss://",
            lambda external: external.ca_secret_ref is None or external.address.startswith("rediss://"),
        ),
    )


class LedgerSpec(Block):
    """The record of entries and states."""

    type: Annotated[LedgerType, Change.IMMUTABLE] = LedgerType.EMBEDDED
    """Where entries are recorded: Embedded is SQLite in the pod, Provisioned a new Redis, External a Redis of yours."""
    provisioned: ProvisionedLedgerSpec | None = None
    external: ExternalLedgerSpec | None = None
    rules = (
        Rule(
            "has(self.provisioned) == (self.type == 'Provisioned')",
            "set provisioned: {} exactly when type is Provisioned",
            lambda ledger: (ledger.provisioned is not None) == (ledger.type is LedgerType.PROVISIONED),
        ),
        Rule(
            "has(self.external) == (self.type == 'External')",
            "set external: {address: redis://HOST:PORT} exactly when type is External",
            lambda ledger: (ledger.external is not None) == (ledger.type is LedgerType.EXTERNAL),
        ),
    )


class CacheSpec(Block):
    """What is kept of earlier pictures, and when requests resume from it."""

    capacity: Annotated[Quantity, Change.HOT] = "64Mi"
    """Bytes that the states of all replicas together may take."""
    state: Annotated[StateKind, Change.NEW_SPACE] = StateKind.CLEAN
    """Clean keeps the final latent, Trajectory the latents of several steps."""
    levels: (
        Annotated[
            list[LevelSpec],
            Field(max_length=20),
            UniqueBy("skipPercent"),
            Rule(
                "self.all(a, self.all(b, a.skipPercent <= b.skipPercent || "
                "double(a.similarity) >= double(b.similarity)))",
                _RISING,
                _levels_rise,
            ),
            Change.HOT,
        ]
        | None
    ) = None
    """The table of levels; absent: the model's own. With an empty list no request ever resumes."""
    scope: Annotated[Scope, Change.IMMUTABLE] = Scope.TENANT
    """Shared lets tenants resume from each other's states."""
    space_grace_seconds: Annotated[StrictInt, Field(ge=0, le=30 * 24 * 3600), Change.HOT] = 3600
    """Seconds for which entries that no longer fit (another model, dtype, kind of state) are kept for a change back."""
    store: StoreSpec = StoreSpec()
    ledger: LedgerSpec = LedgerSpec()
    rules = (
        Rule(
            "self.store.type != 'Volume' || !isQuantity(self.capacity) || !isQuantity(self.store.volume.size) || "
            "quantity(self.capacity).isLessThan(quantity(self.store.volume.size))",
            "capacity must be below store.volume.size: the volume holds the ledger, the index and the model, too",
            lambda cache: (
                cache.store.type is not StoreType.VOLUME or bytes_of(cache.capacity) < bytes_of(cache.store.volume.size)
            ),
        ),
    )
