#!/bin/sh
# Puts the servers that `make test-shared` runs into build/servers: versitygw, an S3 server, from its Go module, and
# redis-server from Debian's package of that name. What is there already is left alone.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
servers=$root/build/servers
mkdir -p "$servers"
. "$root/tools/go/build.sh"

build_go install-servers versitygw "$servers"

if ! [ -x "$servers/redis-server" ]; then
    if ! command -v redis-server >/dev/null 2>&1; then
        if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
            echo "install-servers: redis-server is missing: install it (on Debian as root: apt-get install redis-server) and put it on PATH" >&2
            exit 2
        fi
        echo "install-servers: installing Debian's package redis-server"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends redis-server >/dev/null
    fi
    ln -sf "$(command -v redis-server)" "$servers/redis-server"
fi
