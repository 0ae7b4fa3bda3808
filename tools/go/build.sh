# shellcheck shell=sh
# A program of a Go module, built from the sources that its go.sum knows. Sourced, never run.

# build_go SCRIPT NAME FOLDER: go.mod and go.sum lie in tools/go/NAME. Their checksum is part of the marker, so that a new
# pin builds anew. Static: on the cluster it may be all that there is in an image.
build_go() {
    pin=$(cat "$root/tools/go/$2/go.mod" "$root/tools/go/$2/go.sum" | sha256sum | cut -c1-12)
    if [ -x "$3/$2" ] && [ -e "$3/.$2-$pin" ]; then
        return
    fi
    if ! command -v go >/dev/null 2>&1; then
        echo "$1: $2 is built from its Go module, and there is no go: install Go (https://go.dev/dl) and put it on PATH" >&2
        exit 2
    fi
    echo "$1: building $2"
    (cd "$root/tools/go/$2" && CGO_ENABLED=0 GOFLAGS="-mod=readonly -buildvcs=false" go build -o "$3/" tool)
    rm -f "$3/.$2-"*
    touch "$3/.$2-$pin"
}
