# shellcheck shell=bash
# Builds programs from Go modules.

# need_go WHAT: fails, saying so, where there is no Go.
need_go() {
    command -v go >/dev/null || fail "$1 is built from its Go modules, and there is no 'go': install Go $GO_AT_LEAST or later"
    at_least "$GO_AT_LEAST" "$(go env GOVERSION | sed 's/^go//')"
}

# go_build ARGUMENTS…: a small program that runs anywhere: no debug information, no paths of this machine, no C library. It takes
# minutes, so it gives way to whatever else is running.
go_build() {
    CGO_ENABLED=0 nice go build -p 2 -trimpath -ldflags='-s -w' "$@" >&2
}
