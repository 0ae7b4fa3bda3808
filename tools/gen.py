"""Writes the generated files; with --check only says whether they are up to date."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).parents[1]
PB = Path("diffcache_core/pb")


def generate_stubs(target: Path) -> None:
    """protoc, with a virtual path so that the stubs import each other as parts of diffcache_core."""
    (target / PB).mkdir(parents=True, exist_ok=True)
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    arguments = [
        "protoc",
        f"-I{PB}={ROOT / 'proto/diffcache/v1'}",
        f"-I{well_known}",
        f"--python_out={target}",
        f"--pyi_out={target}",
        f"--grpc_python_out={target}",
        f"{PB}/diffcache.proto",
    ]
    if protoc.main(arguments) != 0:
        sys.exit("protoc failed")


def main() -> None:
    if "--check" not in sys.argv[1:]:
        generate_stubs(ROOT / "core")
        return
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate_stubs(fresh)
        stale = [
            path.name
            for path in sorted((fresh / PB).iterdir())
            if path.read_bytes() != ((ROOT / "core" / PB / path.name).read_bytes())
        ]
    if stale:
        sys.exit(f"out of date, run `make gen`: {', '.join(stale)}")
    print("generated files are up to date")


if __name__ == "__main__":
    main()
