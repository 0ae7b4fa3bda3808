"""What the Deployment may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffcache_operator.clients.prometheus import Access
from diffcache_operator.settings import Settings, SettingsError


def test_settings() -> None:
    settings = Settings.from_environment({"DIFFCACHE_WATCH_NAMESPACES": "a, b,", "DIFFCACHE_SERVING_IMAGE": "x:1"})
    assert settings.namespaces == ("a", "b")
    assert settings.serving_image == "x:1"
    assert Settings.from_environment({}).namespaces == ()
    assert Settings.from_environment({}).serving_image.startswith("docker.io/diffcache/serving:")
    assert Settings.from_environment({"DIFFCACHE_REDIS_IMAGE": "valkey:8"}).images.redis == "valkey:8"
    wrong = {"RESYNC_SECONDS": "1", "LOG_LEVEL": "loud", "FIXED_IDS": "no"}
    for name, value in [("RESYNC_SECONDS", "often"), *wrong.items()]:
        with pytest.raises(SettingsError, match=name):
            Settings.from_environment({f"DIFFCACHE_{name}": value})


def test_the_operators_own_prometheus() -> None:
    given = {"URL": "https://prometheus:9090", "TOKEN_FILE": "/s/token", "CA_FILE": "/s/ca.crt"}
    settings = Settings.from_environment({f"DIFFCACHE_PROMETHEUS_{name}": value for name, value in given.items()})
    assert settings.prometheus == Access(given["URL"], Path("/s/token"), Path("/s/ca.crt"))
    assert Settings.from_environment({}).prometheus == Access()
    for name, value in (("URL", "prometheus:9090"), ("TOKEN_FILE", "/s/token"), ("CA_FILE", "/s/ca.crt")):
        with pytest.raises(SettingsError, match="PROMETHEUS_URL"):
            Settings.from_environment({f"DIFFCACHE_PROMETHEUS_{name}": value})
