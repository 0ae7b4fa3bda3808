#!/bin/sh
# Puts the clients that `make test-clients` runs into build/clients: grpcurl and grpc-health-probe from their Go modules,
# promtool and prometheus from Debian's package `prometheus`. What is there already is left alone.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
clients=$root/build/clients
mkdir -p "$clients"
. "$root/tools/go/build.sh"

# install_debian NAME: a program of Debian's package prometheus
install_debian() {
    if [ -x "$clients/$1" ]; then
        return
    fi
    if ! command -v "$1" >/dev/null 2>&1; then
        if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
            echo "install-clients: $1 is missing: install it (on Debian as root: apt-get install prometheus) and put it on PATH" >&2
            exit 2
        fi
        echo "install-clients: installing Debian's package prometheus for $1"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends prometheus >/dev/null
    fi
    ln -sf "$(command -v "$1")" "$clients/$1"
}

build_go install-clients grpcurl "$clients"
build_go install-clients grpc-health-probe "$clients"
install_debian promtool
install_debian prometheus
