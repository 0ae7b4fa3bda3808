"""The tuner's record on disk. Writes are atomic."""

from __future__ import annotations

from pathlib import Path

import structlog
from pydantic import ValidationError

from diffcache_core.documents import DocumentError, read_document
from diffcache_core.private_files import write_private
from diffcache_core.resource.status import TuningStatus
from diffcache_core.tuning.record import RECORD_FILE

log = structlog.get_logger("diffcache.tuning")


def read_record(folder: Path) -> TuningStatus | None:
    """Returns the record, or None if there is no file or it is not a valid record."""
    path = folder / RECORD_FILE
    if not path.exists():
        return None
    try:
        return TuningStatus.model_validate_json(read_document(path))
    except (DocumentError, ValidationError) as error:
        log.warning("the tuner's record cannot be read, the manifest's values hold", file=str(path), error=str(error))
        return None


def write_record(folder: Path, record: TuningStatus) -> None:
    """Writes the record. Raises OSError if that fails."""
    write_private(folder / RECORD_FILE, record.model_dump_json(by_alias=True, indent=2))
