# shellcheck shell=bash
# A minimal HTTP client in bash.

# http HOST PORT LINES…: sends these lines as a request and prints the response received within two
# seconds.
http() {
    local host=$1 port=$2
    shift 2
    exec 4<>"/dev/tcp/$host/$port"
    if (($# == 1)); then set -- "$1" ''; fi
    printf '%s\r\n' "$@" >&4
    timeout 2 cat <&4
    exec 4>&-
}
