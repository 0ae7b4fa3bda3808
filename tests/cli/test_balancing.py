"""The client and several pods: real gRPC servers behind a real name, whose addresses come and go."""

from __future__ import annotations

import socket
import struct
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from diffcache import AsyncClient, Client
from diffcache_core.pb import diffcache_pb2 as pb
from diffcache_core.pb import diffcache_pb2_grpc as pb_grpc

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")

FIRST, SECOND, THIRD = "127.0.0.1", "127.0.0.2", "127.0.0.3"


class Names(threading.Thread):
    """A DNS server (RFC 1035) that answers every question for an A record with the addresses it has at the time."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.addresses: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((FIRST, 0))
        self.port = self._socket.getsockname()[1]

    def run(self) -> None:
        while True:
            asked, client = self._socket.recvfrom(512)
            if not asked:
                return
            end = 12
            while asked[end]:
                end += asked[end] + 1
            question, (kind,) = asked[12 : end + 5], struct.unpack(">H", asked[end + 1 : end + 3])
            found = self.addresses if kind == 1 else []
            head = asked[:2] + struct.pack(">HHHHH", 0x8180, 1, len(found), 0, 0)
            records = [b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(one) for one in found]
            self._socket.sendto(head + question + b"".join(records), client)

    def close(self) -> None:
        self._socket.sendto(b"", (FIRST, self.port))
        self.join()
        self._socket.close()


class Pod(pb_grpc.ImageGenerationServicer):
    """Answers with its address, or as one that drains."""

    def __init__(self, address: str) -> None:
        self.address, self.drains = address, False

    def Generate(self, request: pb.GenerateRequest, context: grpc.ServicerContext) -> pb.GenerateResponse:
        if self.drains:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the pod is going")
        return pb.GenerateResponse(
            model=self.address, result=pb.RESULT_MISS, format=pb.IMAGE_FORMAT_PNG, request_id=request.request_id
        )


@contextmanager
def serving(pod: Pod, port: int = 0) -> Iterator[int]:
    """On its address, at a port that all share, with connections as short-lived as a test's patience."""
    with ThreadPoolExecutor(4) as threads:
        options = [("grpc.so_reuseport", 0), ("grpc.max_connection_age_ms", 100)]
        server = grpc.server(threads, options=options)
        pb_grpc.add_ImageGenerationServicer_to_server(pod, server)
        bound = server.add_insecure_port(f"{pod.address}:{port}")
        server.start()
        try:
            yield bound
        finally:
            server.stop(None).wait()


@pytest.fixture
def names() -> Iterator[Names]:
    server = Names()
    server.start()
    yield server
    server.close()


class Asking:
    """Either client, asked the same."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def answered_by(self) -> str:
        made = self._client.generate("a cat")
        return str((await made if isinstance(self._client, AsyncClient) else made).model)

    async def until(self, *wanted: str) -> None:
        """Asks until each of these and nobody else has answered a round of requests."""
        while {await self.answered_by() for _ in range(4)} != set(wanted):
            pass


@pytest.fixture(params=["waiting", "awaited"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    made: list[Any] = []

    def client(target: str) -> Asking:
        made.append(Client(target) if request.param == "waiting" else AsyncClient(target))
        return Asking(made[-1])

    yield client
    for one in made:
        if isinstance(one, AsyncClient):
            await one.close()
        else:
            one.close()


async def test_pods_come_and_go_and_every_request_is_answered(names: Names, make: Any) -> None:
    names.addresses = [FIRST]
    with serving(Pod(FIRST)) as port:
        asking = make(f"dns://{FIRST}:{names.port}/emoji-pods.test:{port}")
        await asking.until(FIRST)
        with serving(Pod(SECOND), port):
            names.addresses = [FIRST, SECOND]
            await asking.until(FIRST, SECOND)
        await asking.until(FIRST)  # the name still holds the pod that has gone
        names.addresses = [THIRD]
        with serving(Pod(THIRD), port):
            await asking.until(THIRD)


async def test_another_pod_answers_for_one_that_drains(names: Names, make: Any) -> None:
    names.addresses = [FIRST, SECOND]
    draining = Pod(FIRST)
    with serving(draining) as port, serving(Pod(SECOND), port):
        asking = make(f"dns://{FIRST}:{names.port}/emoji-pods.test:{port}")
        await asking.until(FIRST, SECOND)
        draining.drains = True
        assert {await asking.answered_by() for _ in range(4)} == {SECOND}


async def test_a_list_of_addresses_is_taken_in_turn(make: Any) -> None:
    with serving(Pod(FIRST)) as port, serving(Pod(SECOND), port):
        await make(f"ipv4:{FIRST}:{port},{SECOND}:{port}").until(FIRST, SECOND)
