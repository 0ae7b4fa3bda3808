"""`spec.index`: where prompts are looked up."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from diffcache_core.resource.pod import Placement, SecretKeyRef, Text
from diffcache_core.resource.rules import Block, Change, Rule
from diffcache_core.resource.spec.values import Resources, VolumeSpec, without_user


def split_uri(uri: str) -> tuple[str, str]:
    """The address of a Milvus, and the database that stands after it; empty if none does."""
    scheme, _, rest = uri.partition("://")
    place, _, database = rest.partition("/")
    return f"{scheme}://{place}", database.rstrip("/")


class IndexType(StrEnum):
    LITE = "Lite"  # Milvus Lite, embedded in the pod
    STANDALONE = "Standalone"  # a Milvus of its own beside the pods
    EXTERNAL = "External"  # a Milvus that somebody else runs


class StandaloneIndexSpec(Block):
    """A Milvus of this cache's own, beside its pods."""

    image: Annotated[Text, Field(min_length=1), Change.ROLL] | None = None
    """Image of Milvus; absent: the running one, at first the operator's default."""
    resources: Annotated[Resources, Change.ROLL] = Resources()
    """Requests and limits of the Milvus container."""
    pod: Annotated[Placement, Change.ROLL] = Placement()
    """Where Milvus' pod runs, as whom, and what it carries; what is absent here is as in serving.pod."""
    volume: VolumeSpec = VolumeSpec()


class ExternalIndexSpec(Block):
    """A Milvus of yours."""

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
    """Database of the Milvus, which must be there; absent: the one at the end of the uri, or else Milvus' default."""
    token_secret_ref: Annotated[SecretKeyRef, Change.ROLL] | None = None
    """user:password, or an API key, of the Milvus."""
    ca_secret_ref: Annotated[SecretKeyRef, Change.ROLL] | None = None
    """PEM certificates that the server's one is checked against."""
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
    """Lite is embedded in the pod, Standalone a Milvus of the cache's own, External one of yours."""
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
