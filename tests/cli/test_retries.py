"""What the clients ask for again, and what not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from diffcache import AsyncClient, Client, GenerationError
from diffcache_core.pb import diffcache_pb2 as pb
from diffcache_core.pb import diffcache_pb2_grpc as pb_grpc


class Pod(pb_grpc.ImageGenerationServicer):
    """Fails the first call with a code. Answers the others."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.code, self.calls = code, 0

    def Generate(self, request: pb.GenerateRequest, context: grpc.ServicerContext) -> pb.GenerateResponse:
        self.calls += 1
        if self.calls == 1:
            context.abort(self.code, self.code.name)
        return pb.GenerateResponse(result=pb.RESULT_MISS, format=pb.IMAGE_FORMAT_PNG)


class Slow(pb_grpc.ImageGenerationServicer):
    """Answers once the client has gone."""

    def __init__(self) -> None:
        self.calls, self.is_asked = 0, threading.Event()

    def Generate(self, request: pb.GenerateRequest, context: grpc.ServicerContext) -> pb.GenerateResponse:
        self.calls += 1
        gone = threading.Event()
        context.add_callback(gone.set)
        self.is_asked.set()
        gone.wait(30)
        return pb.GenerateResponse()


@contextmanager
def serving(pod: pb_grpc.ImageGenerationServicer) -> Iterator[str]:
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        pb_grpc.add_ImageGenerationServicer_to_server(pod, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


def ask(address: str) -> None:
    with Client(address) as client:
        client.generate("a cat")


def ask_in_a_loop(address: str) -> None:
    async def call() -> None:
        async with AsyncClient(address) as client:
            await client.generate("a cat")

    asyncio.run(call())


@pytest.mark.parametrize("asked", [ask, ask_in_a_loop])
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED], ids=lambda code: code.name)
def test_a_call_that_an_ending_pod_does_not_take_is_made_again(
    code: grpc.StatusCode, asked: Callable[[str], None]
) -> None:
    pod = Pod(code)
    with serving(pod) as address:
        asked(address)
    assert pod.calls == 2


@pytest.mark.parametrize("asked", [ask, ask_in_a_loop])
@pytest.mark.parametrize(
    "code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED], ids=lambda code: code.name
)
def test_a_call_whose_steps_may_have_run_is_not(code: grpc.StatusCode, asked: Callable[[str], None]) -> None:
    pod = Pod(code)
    with serving(pod) as address, pytest.raises(GenerationError, match=code.name):
        asked(address)
    assert pod.calls == 1


def test_a_client_that_is_closed_during_a_call_does_not_try_again() -> None:
    pod = Slow()
    with serving(pod) as address, ThreadPoolExecutor(1) as threads:
        client = Client(address)
        call = threads.submit(client.generate, "a cat")
        assert pod.is_asked.wait(30)
        client.close()
        with pytest.raises(GenerationError, match="CANCELLED"):
            call.result()
    assert pod.calls == 1
