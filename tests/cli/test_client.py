"""The Python client, waiting and awaited."""

from __future__ import annotations

import asyncio
import inspect
import socket
from typing import Any

import grpc
import pytest

import diffcache
from diffcache import AsyncClient, CacheMode, Client, GenerationError, ImageFormat, Progress, Result
from diffcache.admin import AdminClient
from diffcache.commands.generate import generate
from diffcache.options import GenerateOptions
from diffcache.wire import error_from_rpc
from diffcache_core.pb import diffcache_pb2 as pb
from diffcache_core.pb.diffcache_pb2_grpc import ImageGenerationStub


def test_a_picture_and_the_truth_about_it(up: Any) -> None:
    with Client(up.server) as client:
        made = client.generate("honeybee, noto style", seed=11, steps=3, width=32, height=32)
        assert made.image.size == (32, 32)
        assert (made.result, made.seed, made.steps, made.format) == (Result.MISS, 11, 3, ImageFormat.PNG)
        again = client.generate("honeybee, noto style", seed=11, steps=3, width=32, height=32)
        assert (again.result, again.data, again.entry_id) == (Result.EXACT, made.data, made.entry_id)


def test_the_stream_ends_with_the_picture(up: Any) -> None:
    with Client(up.server) as client:
        *steps, last = client.stream("ant, noto style", steps=3, cache_mode=CacheMode.BYPASS)
    assert steps == [Progress(i, 3, 0) for i in range(4)]
    assert isinstance(last, diffcache.Generation)


async def test_the_same_awaited(up: Any) -> None:
    async with AsyncClient(up.server, tenant="async") as client:
        made = await client.generate("snail, flat style", seed=1, steps=2)
        events = [event async for event in client.stream("snail, flat style", seed=1, steps=2)]
    assert made.result is Result.MISS
    assert isinstance(events[-1], diffcache.Generation)
    assert events[-1].result is Result.EXACT


async def test_leaving_a_stream_early_ends_the_run(up: Any) -> None:
    async with AsyncClient(up.server) as client:
        stream = client.stream("ant, noto style", steps=900, cache_mode=CacheMode.BYPASS)
        async for _ in stream:
            break
        await stream.aclose()
        with AdminClient(up.admin) as admin:
            while admin.call("GetStats", pb.GetStatsRequest()).pending_steps:
                await asyncio.sleep(0.02)


def test_refusals_are_typed(up: Any) -> None:
    with Client(up.server) as client:
        with pytest.raises(GenerationError) as caught:
            client.generate("", steps=0)
        assert caught.value.code == "INVALID_ARGUMENT"
        assert [v.field for v in caught.value.violations] == ["prompt", "steps"]
        with pytest.raises(GenerationError) as caught:
            client.generate("a lone \ud800 surrogate")
        assert [v.field for v in caught.value.violations] == ["prompt"]
        with pytest.raises(GenerationError, match="steps"):
            client.generate("cat", steps=-1)
        with pytest.raises(GenerationError) as caught:
            client.generate("cat", steps=900, timeout=0.05, cache_mode=CacheMode.BYPASS)
        assert caught.value.code == "DEADLINE_EXCEEDED"
        assert "allow more seconds (--timeout, in Python timeout)" in caught.value.message


@pytest.mark.parametrize(
    "options",
    [
        {"prompt": ""},
        {"prompt": "x" * 5000},
        {"negative_prompt": "a\0"},
        {"seed": 2**63},
        {"steps": 0},
        {"steps": 1001},
        {"guidance": 50.1},
        {"guidance": float("nan")},
        {"width": 0},
        {"width": 2049, "height": 5000},
        {"min_similarity": -1.1},
        {"max_skip_percent": 101},
        {"request_id": "a b"},
    ],
    ids=str,
)
def test_the_client_refuses_in_the_words_of_the_server(options: dict[str, Any], up: Any) -> None:
    options = {"prompt": "cat", "request_id": "r"} | options
    with grpc.insecure_channel(up.server) as channel, pytest.raises(grpc.RpcError) as told:
        ImageGenerationStub(channel).Generate(pb.GenerateRequest(**options))
    with Client("127.0.0.1:1") as client, pytest.raises(GenerationError) as caught:
        client.generate(**options)
    assert caught.value.message == error_from_rpc(told.value).message
    assert caught.value.violations == error_from_rpc(told.value).violations


def test_the_client_lets_the_limits_through(up: Any) -> None:
    with Client(up.server) as client:
        made = client.generate("limits", seed=2**63 - 1, steps=1, guidance=50, min_similarity=-1, max_skip_percent=0)
        assert made.seed == 2**63 - 1
        with pytest.raises(GenerationError, match=r"width: times height must be at most \d+ pixels here"):
            client.generate("limits", steps=1000, width=2048, height=2048)  # which the model alone refuses


def test_unavailable_is_retried_for_the_time_given_and_then_said() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{nobody.getsockname()[1]}"
        with Client(target, retry_seconds=0.3) as client, pytest.raises(GenerationError) as caught:
            client.generate("cat")
    assert caught.value.code == "UNAVAILABLE"


# ---- the options ---------------------------------------------------------------------------------------------------


def test_a_name_is_as_good_as_an_enum(up: Any) -> None:
    with Client(up.server) as client:
        assert client.generate("ant", steps=1, cache_mode="read-only").entry_id == ""
        for mode in (CacheMode.BYPASS, "BYPASS", "bypass"):
            made = client.generate("ant, noto style", seed=1, steps=1, cache_mode=mode)
            assert made.result is Result.BYPASS
        for fmt in (ImageFormat.WEBP, "WEBP", "webp"):
            assert client.generate("ant, noto style", steps=1, format=fmt).format is ImageFormat.WEBP
        for name in CacheMode:
            client.generate("ant, noto style", steps=1, cache_mode=name.lower())
        left = client.generate("ant, noto style", steps=None, cache_mode=None, format=None, request_id=None)
        assert (left.steps, left.format) == (8, ImageFormat.PNG)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cache_mode": "sometimes"}, "cache_mode: must be one of DEFAULT, BYPASS, REFRESH, READ_ONLY, is 'sometimes'"),
        ({"cache_mode": "UNSPECIFIED"}, "cache_mode: must be one of DEFAULT"),
        ({"cache_mode": 2}, "cache_mode: must be one of DEFAULT"),
        ({"cache_mode": True}, "cache_mode: must be one of DEFAULT"),
        ({"format": "gif"}, "format: must be one of PNG, WEBP, JPEG, is 'gif'"),
        ({"seed": "7"}, "seed: must be a whole number from 0 to 9223372036854775807, is '7'"),
        ({"seed": -1}, "seed: must be from 0 to 9223372036854775807, is -1"),
        ({"seed": 2**63}, "seed: must be from 0 to 9223372036854775807, is 9223372036854775808"),
        ({"seed": 2**70}, "seed: must be from 0 to 9223372036854775807, is 1180591620717411303424"),
        ({"seed": 10**5000}, "seed: must be from 0 to 9223372036854775807, is a far larger number"),
        ({"seed": True}, "seed: must be a whole number"),
        ({"steps": 8.0}, "steps: must be a whole number from 1 to 1000, is 8.0"),
        ({"steps": 0, "width": 4096}, "steps: must be from 1 to 1000, is 0; width: must be from 1 to 2048, is 4096"),
        ({"height": -(10**5000)}, "height: must be from 1 to 2048, is a far smaller number"),
        ({"max_skip_percent": 101}, "max_skip_percent: must be from 0 to 100, is 101"),
        ({"min_similarity": -1.5}, "min_similarity: must be from -1 to 1, is -1.5"),
        ({"guidance": 50.5}, "guidance: must be from 0 to 50, is 50.5"),
        ({"guidance": float("nan")}, "guidance: must be from 0 to 50, is nan"),
        ({"negative_prompt": "a\x07"}, "negative_prompt: must not contain the control or surrogate character U+0007"),
        ({"width": [64]}, "width: must be a whole number"),
        ({"guidance": "7.5"}, "guidance: must be a number from 0 to 50, is '7.5'"),
        ({"guidance": True}, "guidance: must be a number"),
        ({"guidance": 10**400}, "guidance: must be from 0 to 50, is a far larger number"),
        ({"min_similarity": object}, "min_similarity: must be a number"),
        ({"negative_prompt": 5}, "negative_prompt: must be text, is 5"),
        ({"negative_prompt": b"x"}, "negative_prompt: must be text"),
        ({"request_id": 5}, "request_id: must be text"),
        ({"request_id": "\ud800"}, "request_id: must be 1 to 128 characters"),
        ({"request_id": "a b"}, "request_id: must be 1 to 128 characters"),
        ({"timeout": "5"}, "timeout: must be above 0"),
        ({"timeout": -1}, "timeout: must be above 0"),
        ({"timeout": float("nan")}, "timeout: must be above 0"),
        ({"timeout": float("inf")}, "timeout: must be above 0"),
    ],
)
async def test_a_wrong_value_is_refused_with_the_right_ones(options: dict[str, Any], words: str) -> None:
    client, waiting = Client("127.0.0.1:1"), AsyncClient("127.0.0.1:1")
    for call in (client.generate, client.stream, waiting.stream):
        with pytest.raises(GenerationError) as caught:
            call("cat", **options)
        assert caught.value.code == "INVALID_ARGUMENT"
        assert words in caught.value.message
    with pytest.raises(GenerationError) as caught:
        await waiting.generate("cat", **options)
    assert words in caught.value.message
    client.close()
    await waiting.close()


@pytest.mark.parametrize("prompt", [None, 5, b"cat", ["cat"]])
def test_a_prompt_that_is_no_text_is_refused(prompt: Any) -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(GenerationError, match="prompt: must be text"):
        client.generate(prompt)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("mode", "cache_mode"),
        ("negative", "negative_prompt"),
        ("max_skip", "max_skip_percent"),
        ("guidance_scale", "guidance"),
        ("num_inference_steps", "steps"),
        ("sede", "seed"),
        ("time_out", "timeout"),
    ],
)
async def test_an_unknown_option_is_refused_with_the_one_that_was_meant(name: str, meant: str) -> None:
    options: Any = {name: 1}
    client, waiting = Client("127.0.0.1:1"), AsyncClient("127.0.0.1:1")
    for call in (client.generate, client.stream, waiting.stream):
        with pytest.raises(TypeError, match=f"there is no option '{name}': did you mean '{meant}'"):
            call("cat", **options)
    with pytest.raises(TypeError, match=f"did you mean '{meant}'.*cache_mode"):
        await waiting.generate("cat", **options)
    client.close()
    await waiting.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"server": None}, "server: must be HOST:PORT, is None"),
        ({"server": 50051}, "server: must be HOST:PORT, is 50051"),
        ({"tenant": None}, "tenant: must be text"),
        ({"tenant": "A"}, "x-diffcache-tenant: must be 1 to 63 characters of a-z 0-9 - .request metadata."),
        ({"tls": "yes"}, "tls: must be True or False"),
        ({"ca_certificate": 5}, "ca_certificate: must be the text of a PEM file"),
        ({"retry_seconds": "5"}, "retry_seconds: must be seconds"),
    ],
)
async def test_a_client_is_made_of_what_it_needs(arguments: dict[str, Any], words: str) -> None:
    for make in (Client, AsyncClient):
        with pytest.raises(GenerationError, match=words):
            make(**{"server": "127.0.0.1:1"} | arguments)


def test_the_command_line_and_the_client_have_the_same_names() -> None:
    """Of what both have; `image` and `format`, which the command takes from its name, are one thing in two shapes."""
    command = set(inspect.signature(generate).parameters) - {"image", "stream", "explain", "output"}
    client = {*GenerateOptions.__annotations__, *inspect.signature(Client).parameters, "prompt", "timeout"}
    assert command < client
    assert client - command == {"format", "request_id", "retry_seconds"}
    assert set(GenerateOptions.__annotations__) | {"prompt"} == set(pb.GenerateRequest.DESCRIPTOR.fields_by_name)
