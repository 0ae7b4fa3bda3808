"""A bucket behind a private authority."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from diffcache_core.serving_config import StoreConfig
from diffcache_serving.cache.s3 import S3StateStore
from diffcache_serving.values.errors import ConfigError
from tests.serving.cache.s3_front import S3Front

pytestmark = pytest.mark.shared


@pytest.fixture
def behind(bucket: StoreConfig, tmp_path: Path) -> Iterator[StoreConfig]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with S3Front(bucket.endpoint, tls=context) as front:
        yield bucket.model_copy(update={"endpoint": front.endpoint})


async def test_its_certificates_are_trusted(behind: StoreConfig, tmp_path: Path) -> None:
    store = S3StateStore(behind.model_copy(update={"ca_file": tmp_path / "ca.pem"}))
    await store.put("ab1", b"one")
    assert await store.get("ab1") == b"one"


async def test_without_them_it_is_not(behind: StoreConfig) -> None:
    with pytest.raises(Exception, match="Generic S3 error"):
        await S3StateStore(behind).put("ab1", b"one")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_that_holds_none_is_named(content: str | None, behind: StoreConfig, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    if content is not None:
        wrong.write_text(content)
    with pytest.raises(ConfigError, match=r"store\.s3\.caSecretRef: .*wrong\.pem"):
        S3StateStore(behind.model_copy(update={"ca_file": wrong}))
