"""Writes an image of an OCI layout as an archive for `ctr images import`, without the blobs the importer has.

partial_archive.py LAYOUT IMAGE <digests-that-are-there >archive.tar
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any


def main() -> None:
    layout, image = Path(sys.argv[1]), sys.argv[2]
    there = set(sys.stdin.read().split())
    manifest = find_manifest(layout, image)
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
        add_text(archive, "oci-layout", {"imageLayoutVersion": "1.0.0"})
        # containerd's own annotation: it takes the name as it is.
        named = manifest | {"annotations": {"io.containerd.image.name": image}}
        add_text(archive, "index.json", {"schemaVersion": 2, "manifests": [named]})
        content = json.loads(blob(layout, manifest["digest"]).read_bytes())
        for digest in dict.fromkeys(part["digest"] for part in [manifest, content["config"], *content["layers"]]):
            if digest not in there:
                archive.add(blob(layout, digest), f"blobs/{digest.replace(':', '/')}")


def find_manifest(layout: Path, image: str) -> dict[str, Any]:
    for manifest in json.loads((layout / "index.json").read_text())["manifests"]:
        # One without a name had this one before.
        if manifest.get("annotations", {}).get("org.opencontainers.image.ref.name") == image:
            return dict(manifest)
    sys.exit(f"{layout} has no {image}")


def blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def add_text(archive: tarfile.TarFile, name: str, value: dict[str, Any]) -> None:
    text = json.dumps(value).encode()
    info = tarfile.TarInfo(name)
    info.size = len(text)
    archive.addfile(info, io.BytesIO(text))


if __name__ == "__main__":
    main()
