"""Requests for pictures over the wire, end to end."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

from diffcache_core.names import NEGATIVE_TOKENS_DROPPED_METADATA, TOKENS_DROPPED_METADATA
from diffcache_core.pb import diffcache_pb2 as pb
from diffcache_serving.engine.loading import LoadedModel
from tests.serving.pipeline import pipe_of
from tests.serving.rpc.wire import APPLE, LIKE_APPLE, Wire, violated


async def test_miss_approximate_exact(wire: Wire) -> None:
    first = await wire.generate(seed=5, steps=8)
    assert (first.result, first.steps_skipped, first.depth, first.seed) == (pb.RESULT_MISS, 0, 0, 5)
    assert not first.HasField("similarity")
    like = await wire.generate(LIKE_APPLE, steps=8)
    assert (like.result, like.steps_skipped, like.depth) == (pb.RESULT_APPROXIMATE, 4, 1)
    assert like.similarity > 0.8
    assert like.parent_entry_id == first.entry_id
    again = await wire.generate(seed=5, steps=8)
    assert (again.result, again.steps_skipped, again.parent_entry_id) == (pb.RESULT_EXACT, 8, first.entry_id)
    assert again.image == first.image
    like_again = await wire.generate(LIKE_APPLE, steps=8, seed=like.seed)
    assert (like_again.result, like_again.image, like_again.depth) == (pb.RESULT_EXACT, like.image, 1)


async def test_the_answer_tells_the_truth_about_its_seconds(wire: Wire) -> None:
    answer = await wire.generate()
    seconds = {field.name: getattr(answer.seconds, field.name) for field in pb.Seconds.DESCRIPTOR.fields}
    assert all(value >= 0 for value in seconds.values())
    assert seconds["denoise"] > 0
    assert sum(v for name, v in seconds.items() if name != "total") <= seconds["total"] * 1.01


@pytest.mark.parametrize(("name", "kind"), [("PNG", "PNG"), ("WEBP", "WEBP"), ("JPEG", "JPEG")])
async def test_formats(name: str, kind: str, wire: Wire) -> None:
    fmt = pb.ImageFormat.Value(f"IMAGE_FORMAT_{name}")
    answer = await wire.generate(seed=1, steps=1, width=32, height=48, format=fmt)
    picture = Image.open(io.BytesIO(answer.image))
    assert (picture.format, picture.size, answer.format) == (kind, (32, 48), fmt)


async def test_png_and_webp_are_the_same_pixels(wire: Wire) -> None:
    one = await wire.generate(seed=1, steps=1, format=pb.IMAGE_FORMAT_PNG)
    other = await wire.generate(seed=1, steps=1, format=pb.IMAGE_FORMAT_WEBP)
    assert other.result == pb.RESULT_EXACT
    pixels = [Image.open(io.BytesIO(a.image)).convert("RGB").tobytes() for a in (one, other)]
    assert pixels[0] == pixels[1]


async def test_a_drawn_seed_is_returned_and_reproduces_the_picture(wire: Wire) -> None:
    one = await wire.generate(steps=2, cache_mode=pb.CACHE_MODE_BYPASS)
    two = await wire.generate(steps=2, cache_mode=pb.CACHE_MODE_BYPASS)
    assert one.seed != two.seed
    again = await wire.generate(steps=2, seed=one.seed, cache_mode=pb.CACHE_MODE_BYPASS)
    assert (again.image, again.result) == (one.image, pb.RESULT_BYPASS)


async def test_tenants_do_not_meet(wire: Wire) -> None:
    await wire.generate(seed=1, tenant="acme")
    assert (await wire.generate(seed=1, tenant="globex")).result == pb.RESULT_MISS
    assert (await wire.generate(LIKE_APPLE, tenant="initech")).result == pb.RESULT_MISS
    assert (await wire.generate(seed=1, tenant="acme")).result == pb.RESULT_EXACT


async def test_the_stream_tells_each_step_and_then_the_picture(wire: Wire) -> None:
    first = await wire.generate(seed=1, steps=4)

    async def stream(prompt: str, **fields: Any) -> list[pb.GenerateStreamResponse]:
        request = pb.GenerateStreamRequest(request=pb.GenerateRequest(prompt=prompt, **fields))
        return [event async for event in wire.images.GenerateStream(request)]

    events = await stream(LIKE_APPLE, steps=4)
    assert [(e.progress.step, e.progress.steps, e.progress.steps_skipped) for e in events[:-1]] == [
        (2, 4, 2),
        (3, 4, 2),
        (4, 4, 2),
    ]
    assert events[-1].generation.result == pb.RESULT_APPROXIMATE
    exact = await stream(APPLE, steps=4, seed=1)
    assert exact[-1].generation.image == first.image


async def test_a_guidance_that_was_said_is_the_one_that_was_not(wire: Wire) -> None:
    """The wire carries 32 bits; a default that needs more must not make another space."""
    await wire.generate(seed=1, steps=1, guidance=7.1)
    assert (await wire.generate(seed=1, steps=1, guidance=7.099999904632568)).result == pb.RESULT_EXACT


async def test_trailers_say_what_happened(wire: Wire) -> None:
    await wire.generate(seed=1, steps=4)
    call = wire.images.Generate(pb.GenerateRequest(prompt=LIKE_APPLE, steps=4))
    answer = await call
    trailers = dict(await call.trailing_metadata())
    assert trailers["x-diffcache-result"] == "APPROXIMATE"
    assert trailers["x-diffcache-steps-skipped"] == "2"
    assert float(trailers["x-diffcache-similarity"]) == pytest.approx(answer.similarity, abs=1e-3)
    assert TOKENS_DROPPED_METADATA not in trailers


async def test_trailers_say_how_many_tokens_were_dropped(wire: Wire) -> None:
    call = wire.images.Generate(pb.GenerateRequest(prompt="cat " * 100, steps=1))
    answer = await call
    trailers = dict(await call.trailing_metadata())
    assert trailers[TOKENS_DROPPED_METADATA] == str(answer.prompt_tokens_dropped)
    assert trailers[NEGATIVE_TOKENS_DROPPED_METADATA] == str(answer.negative_prompt_tokens_dropped) == "0"
    assert answer.prompt_tokens_dropped > 0


async def test_many_at_once_are_all_served(wire: Wire) -> None:
    answers = await asyncio.gather(
        *(wire.generate(f"{noun}, noto style", steps=2, width=32, height=32) for noun in ("cat", "dog", "pizza") * 8)
    )
    assert len(answers) == 24
    assert wire.server.generator.queue.pending_steps == 0


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"prompt": ""}, ["prompt"]),
        ({"prompt": "x" * 100_000}, ["prompt"]),
        ({"prompt": "a\0b"}, ["prompt"]),
        ({"negative_prompt": "\x1b[31m"}, ["negative_prompt"]),
        ({"steps": 0}, ["steps"]),
        ({"steps": 10**6}, ["steps"]),
        ({"width": 63}, ["width"]),
        ({"height": 0}, ["height"]),
        ({"width": 4096}, ["width"]),
        ({"width": 1024, "height": 1024, "steps": 1}, ["width"]),  # a single step, and minutes of it
        ({"guidance": float("nan")}, ["guidance"]),
        ({"guidance": -1}, ["guidance"]),
        ({"seed": 2**64 - 1}, ["seed"]),
        ({"format": 99}, ["format"]),
        ({"cache_mode": 99}, ["cache_mode"]),
        ({"min_similarity": 2}, ["min_similarity"]),
        ({"max_skip_percent": 101}, ["max_skip_percent"]),
        ({"request_id": "a b"}, ["request_id"]),
        ({"tenant": "Not a tenant"}, ["x-diffcache-tenant"]),
        ({"prompt": "", "steps": 0, "format": 99}, ["format", "prompt", "steps"]),
    ],
    ids=str,
)
async def test_a_bad_request_is_refused_field_by_field(fields: dict[str, Any], names: list[str], wire: Wire) -> None:
    assert await wire.refused(**fields) == names


@pytest.mark.parametrize("data", [b"\x0a\x02\xed\xa0", b"\xff\xff\xff", b"\x0a\x03\xed\xa0\x80"])
@pytest.mark.parametrize("method", ["Generate", "GenerateStream"])
async def test_bytes_that_are_no_request_are_refused(data: bytes, method: str, wire: Wire) -> None:
    """A lone surrogate in UTF-8 among them; protobuf's own client would not even send it."""
    port = wire.server.reloader.config.listen.port
    path = f"/diffcache.v1.ImageGeneration/{method}"
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = channel.unary_unary(path)(data) if method == "Generate" else channel.unary_stream(path)(data).read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answer
    assert violated(caught.value) == ["request"]


async def test_two_tenants_are_one_too_many(wire: Wire) -> None:
    metadata = (("x-diffcache-tenant", "a"), ("x-diffcache-tenant", "b"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.images.Generate(pb.GenerateRequest(prompt=APPLE), metadata=metadata)
    assert violated(caught.value) == ["x-diffcache-tenant"]


async def test_what_is_drawn_from_a_purged_entry_is_not_kept(wire: Wire) -> None:
    first = await wire.generate(seed=1, steps=4)
    call = wire.images.GenerateStream(
        pb.GenerateStreamRequest(request=pb.GenerateRequest(prompt=LIKE_APPLE, steps=200, width=64, height=64))
    )
    events = aiter(call)
    assert (await anext(events)).progress.steps_skipped > 0
    await wire.admin.Purge(pb.PurgeRequest(prompt=APPLE))
    *_, last = [event async for event in events]
    assert (last.generation.parent_entry_id, last.generation.entry_id) == (first.entry_id, "")
    assert not (await wire.admin.ListEntries(pb.ListEntriesRequest())).entries


async def test_an_empty_stream_request_and_purge_are_refused(wire: Wire) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.images.GenerateStream(pb.GenerateStreamRequest()).read()
    assert violated(caught.value) == ["request"]
    for request in (pb.PurgeRequest(), pb.PurgeRequest(prompt=""), pb.PurgeRequest(all=False)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.admin.Purge(request)
        assert violated(caught.value)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.admin.ListEntries(pb.ListEntriesRequest(limit=10**6))
    assert violated(caught.value) == ["limit"]


async def test_a_full_queue_says_when_to_come_back(wire: Wire) -> None:
    long = asyncio.ensure_future(wire.generate(steps=1000))
    while not wire.server.generator.queue.requests:
        await asyncio.sleep(0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.generate(steps=8)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    retry = error_details_pb2.RetryInfo()
    status = rpc_status.from_call(caught.value)
    assert status is not None
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.ToTimedelta().total_seconds() > 0
    long.cancel()


# ---- ends before the end ---------------------------------------------------------------------------------------------


async def test_a_cancelled_call_frees_device_and_queue(wire: Wire) -> None:
    call = wire.images.GenerateStream(
        pb.GenerateStreamRequest(request=pb.GenerateRequest(prompt=APPLE, steps=900, width=32, height=32))
    )
    assert (await call.read()).progress.step == 0
    call.cancel()
    await asyncio.wait_for(wire.server.generator.queue.idle.wait(), 30)
    assert wire.server.generator.queue.pending_steps == 0
    assert (await wire.generate(steps=1)).steps == 1


async def test_a_deadline_ends_the_run(wire: Wire) -> None:
    request = pb.GenerateRequest(prompt=APPLE, steps=900, width=32, height=32)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.images.Generate(request, timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(wire.server.generator.queue.idle.wait(), 30)


async def test_a_bug_is_internal_and_tells_nothing(wire: Wire, model: LoadedModel) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a secret of the inside")

    hook = pipe_of(model).unet.register_forward_pre_hook(fail)
    processors = [structlog.contextvars.merge_contextvars]
    with structlog.testing.capture_logs(processors) as lines, pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.generate(request_id="broken-one")
    hook.remove()
    (line,) = [entry for entry in lines if entry["log_level"] == "error"]
    assert line["request_id"] == "broken-one"
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in caught.value.details()
    assert (await wire.generate(steps=1)).steps == 1
