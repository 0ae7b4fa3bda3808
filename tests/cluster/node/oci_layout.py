"""What `load` needs to know of an image in an OCI layout.

oci_layout.py blobs LAYOUT IMAGE     its blobs, one digest a line
oci_layout.py archive LAYOUT IMAGE   an archive for `ctr images import` that has the image's name, and no blobs
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any


def main() -> None:
    command, layout, image = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    manifest = find_manifest(layout, image)
    if command == "blobs":
        content = json.loads((layout / "blobs" / manifest["digest"].replace(":", "/")).read_bytes())
        digests = [part["digest"] for part in [*content["layers"], content["config"], manifest]]
        print("\n".join(dict.fromkeys(digests)))
    else:
        write_archive(manifest, image)


def find_manifest(layout: Path, image: str) -> dict[str, Any]:
    for manifest in json.loads((layout / "index.json").read_bytes())["manifests"]:
        # One without annotations had the name before.
        if manifest.get("annotations", {}).get("org.opencontainers.image.ref.name") == image:
            return dict(manifest)
    sys.exit(f"{layout} has no {image}")


def write_archive(manifest: dict[str, Any], image: str) -> None:
    named = manifest | {"annotations": {"io.containerd.image.name": image}}  # containerd takes this one as it is
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
        add_text(archive, "oci-layout", {"imageLayoutVersion": "1.0.0"})
        add_text(archive, "index.json", {"schemaVersion": 2, "manifests": [named]})


def add_text(archive: tarfile.TarFile, name: str, value: dict[str, Any]) -> None:
    text = json.dumps(value).encode()
    info = tarfile.TarInfo(name)
    info.size = len(text)
    archive.addfile(info, io.BytesIO(text))


if __name__ == "__main__":
    main()
