"""Codec, store, lock and breaker."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffcache_core.cache.states import allocated_bytes
from diffcache_serving.cache import codec
from diffcache_serving.cache.breaker import FAILURES, SKIP_SECONDS, Breaker
from diffcache_serving.cache.lock import FolderInUse, lock_folder
from diffcache_serving.cache.store import StateStore

TENSORS = {"latent": torch.randn(1, 4, 16, 16), "model_output": torch.randn(1, 4, 2, 2).half()}
DATA = codec.encode("s1", TENSORS)


@pytest.mark.parametrize(("length", "size"), [(0, 0), (1, 4096), (4096, 4096), (4097, 8192)])
def test_allocation_is_in_whole_blocks(length: int, size: int) -> None:
    assert allocated_bytes(length) == size


def test_a_state_comes_back_bit_for_bit() -> None:
    back = codec.decode("s1", DATA, codec.checksum(DATA))
    assert set(back) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_one_changed_byte_is_seen(position: int, change: int) -> None:
    damaged = bytearray(DATA)
    damaged[position] ^= change
    with pytest.raises(codec.DamagedState):
        codec.decode("s1", bytes(damaged), codec.checksum(DATA))


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 8, DATA[:100], DATA + b"x", b"\xff" * 200], ids=["empty", "zeros", "cut", "longer", "ones"]
)
def test_bytes_that_match_their_checksum_but_are_no_state(data: bytes) -> None:
    with pytest.raises(codec.DamagedState):
        codec.decode("s1", data, codec.checksum(data))


def test_another_states_bytes_are_refused_even_with_their_own_checksum() -> None:
    with pytest.raises(codec.DamagedState, match="another state"):
        codec.decode("s2", DATA, codec.checksum(DATA))


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, folder: Path) -> StateStore:
    return StateStore(None if request.param == "memory" else folder)


async def test_the_store_keeps_and_forgets(store: StateStore) -> None:
    await store.put("ab1", b"one")
    await store.put("ab1", b"two")
    assert await store.get("ab1") == b"two"
    await store.delete(["ab1", "never-there"])
    with pytest.raises(FileNotFoundError):
        await store.get("ab1")


async def test_a_sweep_leaves_known_states_only(folder: Path) -> None:
    store = StateStore(folder)
    for name in ("aa1", "bb2", "cc3"):
        await store.put(name, b"x")
    (folder / "aa" / "aa9.safetensors#1").write_bytes(b"half written")
    (folder / "stray").write_bytes(b"?")
    (folder / "zz").mkdir()
    (folder / "zz" / "aa1.safetensors").write_bytes(b"in the wrong place")
    assert await store.sweep({"aa1", "cc3", "dd4"}) == ({"aa1", "cc3"}, 4)
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == ["aa1.safetensors", "cc3.safetensors"]


def test_a_folder_has_one_holder(folder: Path) -> None:
    told: list[str] = []
    first = lock_folder(folder)
    with pytest.raises(FolderInUse, match=r"is in use by process \d+ on .*--data-dir"):
        lock_folder(folder, wait=0.0, on_wait=told.append)
    assert len(told) == 1
    waiting = threading.Event()
    taken: list[object] = []
    thread = threading.Thread(
        target=lambda: taken.append(lock_folder(folder, wait=30, on_wait=lambda holder: waiting.set()))
    )
    thread.start()
    waiting.wait(30)
    first.close()
    thread.join(30)
    assert taken, "the one who waits gets it when the holder goes"


def test_the_breaker_opens_after_failures_in_a_row_and_tries_again() -> None:
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        breaker.failed(100.0)
    breaker.succeeded()
    for _ in range(FAILURES - 1):
        breaker.failed(100.0)
    assert breaker.allows(100.0)
    breaker.failed(100.0)
    assert not breaker.allows(100.0 + SKIP_SECONDS / 2)
    assert breaker.allows(100.0 + SKIP_SECONDS)
    breaker.failed(105.0)  # still down: one look-up in SKIP_SECONDS finds out
    assert not breaker.allows(105.1)
