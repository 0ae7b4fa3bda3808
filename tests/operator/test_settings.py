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


def test_what_the_operator_sends_to_prometheus_and_which_ones_it_asks() -> None:
    given = {
        "URL": "https://mimir/prometheus",
        "HEADERS": '[{"name": "X-Scope-OrgID", "value": "a|b"}]',
        "HEADERS_FOLDER": "/s/headers",
        "OWN_URL_ONLY": "true",
        "ALLOWED_URLS": "http://a, http://b:1/c",
    }
    settings = Settings.from_environment({f"DIFFCACHE_PROMETHEUS_{name}": value for name, value in given.items()})
    assert settings.prometheus == Access(
        given["URL"],
        headers=(("X-Scope-OrgID", "a|b"),),
        headers_folder=Path("/s/headers"),
        own_only=True,
        allowed=("http://a", "http://b:1/c"),
    )
    for name, value in (
        ("URL", "http://me:hunter2@prometheus:9090"),
        ("URL", "http://prometheus:9090?x=#"),
        ("ALLOWED_URLS", "http://me:hunter2@prometheus"),
        ("HEADERS", '[{"name": "Authorization", "value": "hunter2"}]'),
        ("HEADERS", "hunter2"),
        ("OWN_URL_ONLY", "yes"),
    ):
        with pytest.raises(SettingsError, match=name) as caught:
            Settings.from_environment({"DIFFCACHE_PROMETHEUS_URL": "http://a", f"DIFFCACHE_PROMETHEUS_{name}": value})
        assert "hunter2" not in str(caught.value)
        assert "\n" not in str(caught.value)
