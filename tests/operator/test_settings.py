"""What the Deployment may say."""

from __future__ import annotations

import pytest

from diffcache_operator.settings import Settings, SettingsError


def test_settings() -> None:
    settings = Settings.from_environment({"DIFFCACHE_WATCH_NAMESPACES": "a, b,", "DIFFCACHE_SERVING_IMAGE": "x:1"})
    assert settings.namespaces == ("a", "b")
    assert settings.serving_image == "x:1"
    assert Settings.from_environment({}).namespaces == ()
    assert Settings.from_environment({}).serving_image.startswith("docker.io/diffcache/serving:")
    assert Settings.from_environment({"DIFFCACHE_REDIS_IMAGE": "valkey:8"}).images.redis == "valkey:8"
    for name, value in (("RESYNC_SECONDS", "often"), ("RESYNC_SECONDS", "1"), ("LOG_LEVEL", "loud")):
        with pytest.raises(SettingsError, match=name):
            Settings.from_environment({f"DIFFCACHE_{name}": value})
