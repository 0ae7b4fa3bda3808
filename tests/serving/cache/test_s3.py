"""States in a bucket of a real S3 server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diffcache_core.serving_config import StoreConfig
from diffcache_serving.cache.s3 import BucketMissing, S3StateStore
from diffcache_serving.values.errors import ConfigError
from tests.serving.cache.s3_server import S3Server

pytestmark = pytest.mark.shared


async def test_it_keeps_forgets_and_lists(bucket: StoreConfig, s3_server: S3Server) -> None:
    store = S3StateStore(bucket)
    for name in ("ab1", "ab2", "cd3"):
        await store.put(name, b"one")
    await store.put("ab1", b"two")
    assert await store.get("ab1") == b"two"
    assert (s3_server.files(bucket)[0].relative_to(s3_server.files(bucket)[0].parents[3])).parts[:2] == (
        "some",
        "folder",
    )
    os.utime(s3_server.files(bucket)[0], (1000.0, 1000.0))
    listed = await store.listed()
    assert set(listed) == {"ab1", "ab2", "cd3"}
    assert listed["ab1"] == 1000.0
    await store.delete(["ab1", "ab2", "never-there"])
    with pytest.raises(FileNotFoundError):
        await store.get("ab1")
    assert set(await store.listed()) == {"cd3"}


async def test_what_is_not_ours_is_not_listed(bucket: StoreConfig, s3_server: S3Server) -> None:
    store = S3StateStore(bucket)
    await store.put("ab1", b"one")
    folder = s3_server.files(bucket)[0].parent
    (folder / "notes.txt").write_text("somebody's")
    (folder / "zz9.safetensors").write_bytes(b"in the wrong place")
    assert set(await store.listed()) == {"ab1"}


async def test_a_bucket_that_is_gone_says_nothing_about_its_states(bucket: StoreConfig, s3_server: S3Server) -> None:
    told: list[float] = []
    store = S3StateStore(bucket, told.append)
    await store.put("ab1", b"one")
    with pytest.raises(FileNotFoundError):
        await store.get("ab2")
    await store.check()
    assert told == [1, 1, 1]
    s3_server.remove_bucket(bucket)
    with pytest.raises(BucketMissing):
        await store.get("ab1")
    await store.check()
    assert told == [1, 1, 1, 0, 0]


async def test_with_wrong_credentials_nothing_is_taken_for_missing(
    bucket: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await S3StateStore(bucket).put("ab1", b"one")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    told: list[float] = []
    store = S3StateStore(bucket, told.append)
    with pytest.raises(Exception) as raised:  # noqa: PT011  # obstore has many
        await store.get("ab1")
    assert not isinstance(raised.value, FileNotFoundError)
    with pytest.raises(Exception, match="403"):
        await store.put("ab2", b"two")
    await store.check()
    assert told == [0, 0, 0]


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_of_the_credentials_are_a_mistake(
    missing: str, bucket: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(missing)
    with pytest.raises(ConfigError, match=r"the bucket \S+ cannot be used \(Missing\w+\): set AWS_ACCESS_KEY_ID and"):
        S3StateStore(bucket)


async def test_without_any_credentials_nothing_is_taken_for_missing(
    bucket: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then they come from where the pod runs, and here there is none."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(Exception) as raised:  # noqa: PT011
        await S3StateStore(bucket).get("ab1")
    assert not isinstance(raised.value, FileNotFoundError)


async def test_a_server_that_is_down_fails_soon_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with S3Server(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        store = S3StateStore(server.start().make_bucket())
        await store.put("ab1", b"one")
        server.kill()
        with pytest.raises(Exception) as raised:  # noqa: PT011
            await store.get("ab1")
        assert not isinstance(raised.value, FileNotFoundError)
        server.start()
        assert await store.get("ab1") == b"one"
