# shellcheck shell=bash
# Builds programs from Go modules.

# need_go WHAT: fails with a message if Go is missing or too old.
need_go() {
    command -v go >/dev/null || fail "$1 is built from its Go modules, and 'go' is missing: install Go $GO_AT_LEAST or later"
    at_least "$GO_AT_LEAST" "$(go env GOVERSION | sed 's/^go//')"
}

# go_build ARGUMENTS…: builds a small portable program: no debug information, no local paths, no C
# library. It takes minutes, so it runs at low priority.
go_build() {
    CGO_ENABLED=0 nice go build -p 2 -trimpath -ldflags='-s -w' "$@" >&2
}
