"""What goes into the images and what tools download is held to checksums; torch's own index supplies torch alone."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "images"
UV = Path(sys.executable).with_name("uv")


def pins(path: Path) -> dict[tuple[str, str], list[str]]:
    """The hashes of each NAME and VERSION."""
    text = path.read_text().replace("\\\n", " ")
    found = {}
    for line in filter(None, text.splitlines()):
        name, version = re.match(r"([a-z0-9.-]+)==([^ ]+)", line).groups()  # type: ignore[union-attr]  # all are pins
        found[name, version] = re.findall(r"--hash=sha256:([0-9a-f]{64})", line)
    return found


@pytest.mark.parametrize("name", ["hashes.txt", "uv.txt"])
def test_every_package_has_hashes_and_no_address(name: str) -> None:
    assert pins(IMAGES / name)
    assert all(pins(IMAGES / name).values())
    assert "://" not in (IMAGES / name).read_text()


def test_the_images_hold_what_is_tested() -> None:
    tested = set(re.findall(r"^([a-z0-9.-]+)==([^ \n]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    held = pins(IMAGES / "hashes.txt")
    built_with = {name for name, _ in held} - {name for name, _ in tested}
    assert built_with == {"hatchling", "tomlkit", "trove-classifiers"}
    assert {pin for pin in held if pin[0] not in built_with} <= tested, "make hashes"
    assert {"torch", "grpcio", "kopf", "milvus-lite"} < {name for name, _ in held}


def test_nothing_is_downloaded_without_a_checksum() -> None:
    files = [
        ROOT / "Makefile",
        *IMAGES.rglob("Dockerfile"),
        *(ROOT / "tests" / "cluster" / "images").rglob("Dockerfile"),
        *(ROOT / "tools").glob("*.sh"),
    ]
    for path in files:
        text = path.read_text().replace("\\\n", " ")
        for line in text.splitlines():
            if re.search(r"pip[\"']? (install|download)", line) and "uv pip install --python" not in line:
                assert "--require-hashes" in line or "--build-constraints" in line, f"{path}: {line}"
        assert not re.search(r"\bgo install|\bcurl |\bwget ", text), path
    for module in (ROOT / "tools" / "go").iterdir():
        assert not module.is_dir() or (module / "go.sum").stat().st_size


class Index:
    """A package index in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"file://{folder}"

    def add(self, name: str, version: str, needs: str = "") -> str:
        """A wheel with one module; returns its hash."""
        folder = self.folder / name.replace("_", "-")
        folder.mkdir(parents=True, exist_ok=True)
        wheel = folder / f"{name}-{version}-py3-none-any.whl"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        metadata += f"Requires-Dist: {needs}\n" if needs else ""
        info = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"{name}.py", f"ORIGIN = {self.folder.name!r}\n")
            archive.writestr(f"{info}/METADATA", metadata)
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        with (folder / "index.html").open("a") as page:
            page.write(f'<a href="{wheel.name}#sha256={digest}">{wheel.name}</a>\n')
        return digest


@pytest.fixture
def build(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    folder.mkdir()
    shutil.copy(IMAGES / "serving" / "lists", folder)
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "0"\nrequires-python = ">=3.11"\n'
        '[project.optional-dependencies]\nserving = ["torch>=2", "sympy"]\n'
    )
    return folder


def make_lists(folder: Path, index: Index, **environment: str) -> None:
    environment = {"UV_DEFAULT_INDEX": index.url, "UV_CACHE_DIR": str(folder / "cache"), **environment}
    ours = {"PATH": f"{UV.parent}:{os.environ['PATH']}"}
    subprocess.run(["./lists"], cwd=folder, check=True, env=os.environ | ours | environment)


def test_torch_s_index_supplies_torch_and_nothing_else(build: Path, tmp_path: Path) -> None:
    public, own = Index(tmp_path / "public"), Index(tmp_path / "own")
    hashes = {name: public.add(name, "1.0") for name in ("sympy", "milvus_lite")}
    public.add("torch", "2.0", "sympy")
    of_torch = own.add("torch", "2.0+cpu", "sympy")
    own.add("sympy", "1.0")  # the same version, other bytes
    own.add("milvus_lite", "1.0")
    own.add("sympy", "99.0")
    (build / "hashes.txt").write_text(
        f"torch==2.0 --hash=sha256:{'0' * 64}\nsympy==1.0 --hash=sha256:{hashes['sympy']}\n"
        f"milvus-lite==1.0 --hash=sha256:{hashes['milvus_lite']}\n"
    )
    make_lists(build, public, TORCH_INDEX=own.url)
    assert pins(build / "torch.txt") == {("torch", "2.0+cpu"): [of_torch]}
    assert pins(build / "needs.txt") == {("sympy", "1.0"): [hashes["sympy"]]}
    assert pins(build / "serving.txt") == {
        ("milvus-lite", "1.0"): [hashes["milvus_lite"]],
        ("sympy", "1.0"): [hashes["sympy"]],
    }
    assert own.url not in "".join((build / f"{name}.txt").read_text() for name in ("torch", "needs", "serving"))
    make_lists(build, public, TORCH_INDEX=own.url, TORCH_SHA256="1" * 64)
    assert pins(build / "torch.txt") == {("torch", "2.0+cpu"): ["1" * 64]}


def test_other_bytes_of_the_same_version_are_refused(build: Path, tmp_path: Path) -> None:
    public = Index(tmp_path / "public")
    for name in ("torch", "sympy", "milvus_lite"):
        public.add(name, "2.0")
    (build / "hashes.txt").write_text(f"sympy==2.0 --hash=sha256:{'0' * 64}\n")
    make_lists(build, public)
    words = ["pip", "install", "--no-deps", "--require-hashes", "--target", str(tmp_path / "there")]
    lists = ["-r", str(build / "serving.txt"), "-c", str(build / "hashes.txt")]
    environment = os.environ | {"UV_DEFAULT_INDEX": public.url, "UV_CACHE_DIR": str(build / "cache")}
    done = subprocess.run([UV, *words, *lists], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "sympy" in done.stderr
    assert not (tmp_path / "there" / "sympy.py").exists()
