"""One model on a Hugging Face hub or a mirror of it (HF_ENDPOINT). Every error says what to do."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from diffcache_core.os_errors import FULL, explain_os_error
from diffcache_serving.values.errors import DownloadFailed

TOKEN_ENVIRONMENT = "HF_TOKEN"  # noqa: S105  # the variable's name
FILES_AT_ONCE = 4  # more do not make a download of two large files faster


class Hub:
    """Reads and downloads one model. All methods raise DownloadFailed if they fail."""

    def __init__(self, source: str, revision: str) -> None:
        self._source, self._revision = source, revision
        self._token: str | bool = os.environ.get(TOKEN_ENVIRONMENT) or False  # False: no token from a home folder
        self._api = HfApi(token=self._token)
        self._host = self._api.endpoint

    def read_commit(self) -> str:
        """Returns the current commit of the revision. All later calls use it, so files of two commits never mix."""
        with self._explained():
            commit = self._api.model_info(self._source, revision=self._revision or None).sha
        if not commit:
            raise DownloadFailed(f"model {self._source}: {self._host} does not tell a commit: is it a mirror of a hub?")
        return commit

    def read_sizes(self, commit: str) -> dict[str, int]:
        """Returns the size in bytes of every file, by path."""
        with self._explained():
            tree = self._api.list_repo_tree(self._source, recursive=True, revision=commit)
            return {item.path: item.size for item in tree if isinstance(item, RepoFile)}

    def download(self, commit: str, paths: list[str], folder: Path) -> None:
        """Downloads `paths` into `folder`. Keeps files that an earlier run has completed."""
        with self._explained():
            snapshot_download(
                self._source,
                revision=commit,
                local_dir=folder,
                allow_patterns=[glob.escape(path) for path in paths],
                token=self._token,
                max_workers=FILES_AT_ONCE,
            )

    def check(self, folder: Path, sizes: Mapping[str, int]) -> None:
        """Checks that all files exist with their sizes: without a network the library does not report missing files."""
        for path, size in sizes.items():
            file = folder / path
            if not file.is_file() or file.stat().st_size != size:
                raise DownloadFailed(f"model {self._source}: {path} did not come whole from {self._host}: try again")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the library and the network code below it raise many types
            raise DownloadFailed(f"model {self._source}: {self._explain(_root(error))}") from error

    def _explain(self, error: BaseException) -> str:
        page = f"{self._host}/{self._source}"
        token = f"set spec.model.tokenSecretRef ({TOKEN_ENVIRONMENT} outside a cluster)"
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
        if isinstance(error, GatedRepoError):
            return f"is gated: accept its licence at {page}, and {token} to a token of that account"
        if isinstance(error, RevisionNotFoundError):
            return f"there is no revision {self._revision or 'main'} at {page}: correct spec.model.revision"
        if isinstance(error, RepositoryNotFoundError) or status == 404:
            return f"there is no {page}, or it is private: correct spec.model.source, or {token}"
        if status in (401, 403):
            return f"{self._host} refuses access ({status}): accept the licence at {page}, and {token} to a valid token"
        if status:
            return f"{self._host} answers {status}: try again later, or set HF_ENDPOINT to a mirror"
        if isinstance(error, OSError) and error.errno in FULL:
            return (
                "the volume is full: it holds the model, the cache and, for a while, an earlier model; expand the "
                "claim, lower spec.cache.spaceGraceSeconds, or create the DiffusionCache anew with a larger volume"
            )
        if isinstance(error, OSError) and error.filename is not None:
            return explain_os_error(error, error.filename, "make it writable")
        first = (str(error).strip().splitlines() or [""])[0]
        return (
            f"{self._host} cannot be reached ({type(error).__name__}: {first}): check DNS, proxy and network policies, "
            "or set HF_ENDPOINT to a mirror"
        )


def _root(error: BaseException) -> BaseException:
    """Returns the cause of an error. The library reports an outage as "not in the local cache"."""
    while isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error
