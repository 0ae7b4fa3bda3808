"""`spec.index`: where similar prompts are looked up."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from diffcache_core.resource.pod import Placement, SecretKeyRef, Text
from diffcache_core.resource.rules import Block, Change, Rule
from diffcache_core.resource.spec.values import Resources, VolumeSpec, without_user


def split_uri(uri: str) -> tuple[str, str]:
    """Returns the address of a Milvus, and the database at the end of the URI; empty if there is none."""
    scheme, _, rest = uri.partition("://")
    place, _, database = rest.partition("/")
    return f"{scheme}://{place}", database.rstrip("/")


class IndexType(StrEnum):
    LITE = "Lite"  # Milvus Lite, embedded in the pod
    STANDALONE = "Standalone"  # the cache's own Milvus, beside the pods
    EXTERNAL = "External"  # a Milvus that the operator does not manage


class StandaloneIndexSpec(Block):
    """A Milvus for this cache alone, beside its pods."""

    image: Annotated[Text, Field(min_length=1), Change.ROLL] | None = None
    """Image of Milvus; absent: the running one, at first the operator's default."""
    resources: Annotated[Resources, Change.ROLL] = Resources()
    """Requests and limits of the Milvus container."""
    pod: Annotated[Placement, Change.ROLL] = Placement()
    """Nodes, user, labels and further options of Milvus' pod; an absent field is as in serving.pod."""
    volume: VolumeSpec = VolumeSpec()


class ExternalIndexSpec(Block):
    """A Milvus that you run."""

    uri: Annotated[
        str,
        Field(max_length=512),
        without_user("name a Secret in tokenSecretRef instead"),
        Rule.matches(
            r"^https?://[^\s/?#]+(/([A-Za-z_][A-Za-z0-9_]*/?)?)?$",
            "must be the address of a Milvus, such as http://milvus:19530, and after a / perhaps a database",
        ),
        Change.ROLL,
    ]
    """Address of the Milvus, such as http://milvus:19530."""
    database: (
        Annotated[
            str,
            Field(max_length=255),
            Rule.matches(r"^[A-Za-z_][A-Za-z0-9_]*$", "must be the name of a database: letters, digits and _"),
            Change.ROLL,
        ]
        | None
    ) = None
    """Database of the Milvus, which must exist; absent: the one at the end of the uri, or else Milvus' default."""
    token_secret_ref: Annotated[SecretKeyRef, Change.ROLL] | None = None
    """Credentials of the Milvus: user:password, or an API key."""
    ca_secret_ref: Annotated[SecretKeyRef, Change.ROLL] | None = None
    """PEM certificates of the authorities that are trusted for the server."""
    rules = (
        Rule(
            "!has(self.caSecretRef) || self.uri.startsWith('https://')",
            "caSecretRef needs a uri that begins with https://",
            lambda external: external.ca_secret_ref is None or external.uri.startswith("https://"),
        ),
        Rule(
            "!has(self.database) || self.uri.matches('^https?://[^/]+/?$')",
            "name the database once: in database, or at the end of the uri",
            lambda external: external.database is None or not split_uri(external.uri)[1],
        ),
    )


class IndexSpec(Block):
    """Where similar prompts are looked up."""

    type: Annotated[IndexType, Change.IMMUTABLE] = IndexType.LITE
    """Lite is embedded in the pod, Standalone is a Milvus for this cache, External is one of yours."""
    standalone: StandaloneIndexSpec | None = None
    external: ExternalIndexSpec | None = None
    rules = (
        Rule(
            "has(self.external) == (self.type == 'External')",
            "set external: {uri: http://HOST:PORT} exactly when type is External",
            lambda index: (index.external is not None) == (index.type is IndexType.EXTERNAL),
        ),
        Rule(
            "has(self.standalone) == (self.type == 'Standalone')",
            "set standalone: {} exactly when type is Standalone",
            lambda index: (index.standalone is not None) == (index.type is IndexType.STANDALONE),
        ),
    )
