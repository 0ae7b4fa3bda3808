"""Reads the file that holds a ServingConfig. The revision identifies the bytes that were read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from diffcache_core.documents import DocumentError, read_document
from diffcache_core.resource.manifest import explain_validation
from diffcache_core.serving_config import ServingConfig, revision_of
from diffcache_serving.values.errors import ConfigError


@dataclass(frozen=True)
class ConfigFile:
    path: Path
    revision: str
    config: ServingConfig


def read_config_file(path: Path) -> ConfigFile:
    """Reads the config. Raises ConfigError with the file and, if possible, the wrong field."""
    try:
        text = read_document(path)
        config = ServingConfig.model_validate_json(text)
    except ValidationError as error:
        remedy = "let `diffcache up` or the operator write it"
        raise ConfigError(f"{path} is not a valid ServingConfig, {remedy}:\n{explain_validation(error)}") from None
    except DocumentError as error:
        raise ConfigError(f"{error}: choose another one") from None
    return ConfigFile(path, revision_of(text.encode()), config)
