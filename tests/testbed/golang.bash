# shellcheck shell=bash
# Builds programs from Go modules, and asks what they serve.

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

# http HOST PORT LINES…: sends these lines as a request and prints what comes back within two seconds.
http() {
    local host=$1 port=$2
    shift 2
    exec 4<>"/dev/tcp/$host/$port"
    if (($# == 1)); then set -- "$1" ''; fi
    printf '%s\r\n' "$@" >&4
    timeout 2 cat <&4
    exec 4>&-
}
