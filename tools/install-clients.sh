#!/bin/sh
# Puts the clients that `make test-clients` runs into build/clients: grpcurl and grpc-health-probe from their Go modules,
# promtool and prometheus from Debian's package `prometheus`. What is there already is left alone.
set -eu

GRPCURL=v1.9.4
HEALTH_PROBE=v0.4.61

clients=$(cd "$(dirname "$0")/.." && pwd)/build/clients
mkdir -p "$clients"

# install_go NAME PACKAGE VERSION: the version is part of the marker, so a new pin installs anew
install_go() {
    if [ -x "$clients/$1" ] && [ -e "$clients/.$1-$3" ]; then
        return
    fi
    if ! command -v go >/dev/null 2>&1; then
        echo "install-clients: $1 is built from its Go module, and there is no go: install Go (https://go.dev/dl) and put it on PATH" >&2
        exit 2
    fi
    echo "install-clients: building $1 $3"
    GOBIN="$clients" go install "$2@$3"
    rm -f "$clients/.$1-"*
    touch "$clients/.$1-$3"
}

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

install_go grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl "$GRPCURL"
install_go grpc-health-probe github.com/grpc-ecosystem/grpc-health-probe "$HEALTH_PROBE"
install_debian promtool
install_debian prometheus
