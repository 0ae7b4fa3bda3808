"""Getting into a Milvus that wants a token over TLS, as pymilvus really sends it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc

from diffcache_core.resource.spec import DiffusionCache
from diffcache_core.resource_to_config import Host, build_serving_config
from diffcache_core.serving_config import ListenConfig
from diffcache_serving.cache.index import IndexUnavailable
from diffcache_serving.cache.milvus import Access, MilvusIndex


class Gate(milvus_pb2_grpc.MilvusServiceServicer):  # type: ignore[misc]  # pymilvus ships no types
    """The door of a Milvus: whoever has not the token stays outside; behind it each collection exists."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.databases: set[str] = set()  # that it was asked for

    def _check(self, context: Any) -> Any:
        sent = dict(context.invocation_metadata()).get("authorization", "")
        self.databases.add(dict(context.invocation_metadata()).get("dbname", ""))
        if base64.b64decode(sent).decode() != self.token:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure")
        return common_pb2.Status()

    def Connect(self, request: Any, context: Any) -> Any:
        return milvus_pb2.ConnectResponse(status=self._check(context), identifier=1)

    def DescribeCollection(self, request: Any, context: Any) -> Any:
        return milvus_pb2.DescribeCollectionResponse(status=self._check(context))

    def LoadCollection(self, request: Any, context: Any) -> Any:
        return self._check(context)

    def GetLoadingProgress(self, request: Any, context: Any) -> Any:
        return milvus_pb2.GetLoadingProgressResponse(status=self._check(context), progress=100)


@dataclass
class Door:
    uri: str
    gate: Gate
    ca_file: Path
    token_file: Path

    def index(self, access: Access) -> MilvusIndex:
        return MilvusIndex(lambda: self.uri, "c", 2, call_seconds=3.0, access=access)


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
    gate = Gate("root:first")
    server = grpc.server(ThreadPoolExecutor(2))
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(gate, server)
    credentials = grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain)])
    port = server.add_secure_port("localhost:0", credentials)
    server.start()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "token").write_text("root:first\n")
    yield Door(f"https://localhost:{port}", gate, tmp_path / "ca.pem", tmp_path / "token")
    server.stop(None).wait()


async def test_the_token_gets_in_and_a_rotated_one_too(door: Door) -> None:
    index = door.index(Access(door.token_file, door.ca_file))
    await index.ping()
    door.gate.token = "root:second"
    with pytest.raises(IndexUnavailable):
        await index.ping()
    door.token_file.write_text("root:second\n")
    await index.ping()
    await index.close()


@pytest.mark.parametrize("lacks", ["the token", "the authority", "the token file"])
async def test_who_lacks_something_stays_outside(door: Door, lacks: str) -> None:
    if lacks == "the token file":
        door.token_file.unlink()
    access = Access(
        None if lacks == "the token" else door.token_file, None if lacks == "the authority" else door.ca_file
    )
    index = door.index(access)
    with pytest.raises(IndexUnavailable):
        await index.ping()
    await index.close()


async def test_the_database_that_is_named_is_asked(door: Door) -> None:
    index = door.index(Access(door.token_file, door.ca_file, "pictures"))
    await index.ping()
    await index.close()
    assert "pictures" in door.gate.databases
    door.gate.databases.clear()
    index = door.index(Access(door.token_file, door.ca_file))
    await index.ping()
    await index.close()
    assert door.gate.databases <= {"", "default"}


@pytest.mark.parametrize(
    ("external", "uri", "database"),
    [
        ({"uri": "http://m:1"}, "http://m:1", ""),
        ({"uri": "http://m:1/"}, "http://m:1", ""),
        ({"uri": "https://m:1/pictures/"}, "https://m:1", "pictures"),
        ({"uri": "http://m:1/", "database": "pictures"}, "http://m:1", "pictures"),
    ],
)
def test_what_a_manifest_names(external: dict[str, str], uri: str, database: str, tmp_path: Path) -> None:
    index = {"type": "External", "external": external}
    resource = DiffusionCache.model_validate(
        {
            "apiVersion": "diffcache.io/v1alpha1",
            "kind": "DiffusionCache",
            "metadata": {"name": "a"},
            "spec": {"model": {"source": "bundled://emoji"}, "index": index},
        }
    )
    config = build_serving_config(resource, Host(tmp_path, ListenConfig())).index
    assert (config.uri, config.database) == (uri, database)
