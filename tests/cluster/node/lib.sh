# shellcheck shell=bash
# What the node's scripts share: where things are, and how to get inside. Sourced, never run.
#
# The node lives in three namespaces of its own, so that the machine's routes, mounts and processes stay untouched and
# several clusters run side by side: a named network namespace, which tests enter, and the mount and process namespaces
# of one process `init`. When `init` ends, the kernel ends whatever runs in the node and drops its mounts, which is why
# `down` needs no order of ending things.

NODE_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$NODE_DIR/../../.." && pwd)
STATE=$(realpath -m "${DIFFCACHE_CLUSTER:-$ROOT/build/cluster}")
# Named by the state folder: two folders are two clusters.
NAME=diffcache-$(sha256sum <<<"$STATE" | cut -c1-8)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/diffcache

NODE=node0
NODE_IP=10.245.0.1
POD_CIDR=10.244.0.0/24
SERVICE_CIDR=10.96.0.0/16
API_SERVICE_IP=10.96.0.1 # the first of SERVICE_CIDR, as the API server chooses it
DNS_IP=10.96.0.10
PAUSE_IMAGE=diffcache.test/pause:1
DNS_IMAGE=diffcache.test/coredns:1

export DIFFCACHE_CLUSTER=$STATE # absolute: what runs inside has another working folder
export KUBECONFIG=$STATE/admin.conf
PATH=$ROOT/.venv/bin:$PATH:/usr/sbin:/sbin # kubectl of the project's environment first

die() {
  echo "$*" >&2
  exit 1
}

need_root() {
  [ "$(id -u)" = 0 ] || die "the test node makes network namespaces, mounts and containers: run it as root"
}

install_packages() { # DEBIAN PACKAGE...
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "installing ${missing[*]}" >&2
  {
    flock "$lock" # two at once do not work
    apt-get update -q
    # RUNLEVEL: their services stay off, the node starts its own.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
  } {lock}>/run/lock/diffcache-apt >&2
}

is_left() { # anything of a node, running or not
  [ -e "$STATE" ] || [ -e "/run/netns/$NAME" ] || [ -n "$(node_processes)" ]
}

need_up() {
  [ -e "$STATE/init.pid" ] && kill -0 "$(cat "$STATE/init.pid")" 2>/dev/null ||
    die "the cluster is not up: run $NODE_DIR/up"
}

in_network() { # not `ip netns exec`: its fresh /sys has no cgroups, without which no container starts
  nsenter --net="/run/netns/$NAME" -- "$@"
}

inside() {
  nsenter --target "$(cat "$STATE/init.pid")" --mount --pid --net -- "$@"
}

kube() {
  in_network kubectl "$@"
}

wait_for() { # SECONDS WHAT COMMAND...
  local seconds=$1 what=$2 deadline
  shift 2
  deadline=$((SECONDS + seconds))
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || die "$what: not within $seconds s; see $STATE/log"
    sleep 0.2
  done
}

node_processes() { # everything `up` started has this in its environment; containers have not, and end with `init`
  { grep -lsxzF "DIFFCACHE_NODE=$STATE" /proc/[0-9]*/environ || true; } | cut -d/ -f3 # processes come and go meanwhile
}
