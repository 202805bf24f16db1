# shellcheck shell=bash
# The command line of the server scripts, and the cache of their downloads. A script sources this file,
# defines the functions `install`, `serve DIR PORT` and `ready PORT`, and ends with `run_verb "$@"`.

testbed=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
name=$(basename "$0")
cache=${TRACED_BROKER_CACHE:-${HOME:?}/.cache/traced-broker}
# shellcheck source=versions
source "$testbed/versions"

run_verb() {
    case "$#:${1:-}" in
        1:install) install ;;
        3:serve)
            install
            mkdir -p "$2"
            enter_disk "$@"
            serve "$(cd "$2" && pwd)" "$3"
            ;;
        2:ready) ready "$2" ;;
        *)
            cat >&2 <<USAGE
usage: $name install          install the server into $cache if it is missing
       $name serve DIR PORT   run it on 127.0.0.1:PORT with all its files in DIR, until standard input ends
       $name ready PORT       succeed if it answers in its protocol on 127.0.0.1:PORT
USAGE
            exit 2
            ;;
    esac
}

# enter_disk serve DIR PORT: if TESTBED_DISK names a process and a mount point in its mount namespace,
# makes that the folder DIR/data, and runs this script again in the namespace.
enter_disk() {
    local keeper mount
    read -r keeper mount <<<"${TESTBED_DISK-}"
    if [[ ! $keeper ]]; then return; fi
    ln -sfn "$mount" "$2/data"
    unset TESTBED_DISK
    local -a options=(--mount)
    if ((EUID != 0)); then options+=(--user --preserve-credentials); fi
    exec nsenter --target "$keeper" "${options[@]}" -- "$testbed/$name" "$1" "$(cd "$2" && pwd)" "$3"
}

say() {
    printf 'testbed: %s: %s\n' "$name" "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

# cached NAME FUNCTION: creates the folder NAME of the cache by calling `FUNCTION FOLDER`, once for
# all processes. The folder gets its name when it is complete, so an interrupted call never looks
# finished.
cached() {
    local target=$cache/$1 fetch=$2
    if [[ -d $target ]]; then return; fi
    mkdir -p "$cache"
    exec 9>"$target.lock"
    flock 9
    if [[ ! -d $target ]]; then
        say "fetching $1 (once, into $cache)"
        rm -rf "$target.part"
        mkdir "$target.part"
        "$fetch" "$target.part"
        mv "$target.part" "$target"
    fi
    exec 9>&-
}

# debian_package NAME: installs one of the distribution's packages, which needs root or passwordless
# sudo.
debian_package() {
    local -a root=()
    if ! command -v apt-get >/dev/null; then
        fail "$1 is missing and there is no apt-get: install $1 by other means so that it is on PATH"
    fi
    if ((EUID != 0)); then
        if ! sudo -n true 2>/dev/null; then
            fail "$1 is missing and only root may install it: run 'sudo apt-get install $1', then try again"
        fi
        root=(sudo -n)
    fi
    mkdir -p "$cache"
    exec 9>"$cache/apt.lock"
    flock 9
    say "installing the distribution's $1 (once)"
    "${root[@]}" apt-get update -qq >&2 || fail "apt-get update failed: see above"
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$1" >&2 ||
        fail "apt-get install $1 failed: see above"
    exec 9>&-
    # The package may have started a service on the usual port; the testbed runs its own servers.
    if [[ -d /run/systemd/system ]] && systemctl cat "$1" &>/dev/null; then
        "${root[@]}" systemctl disable --now "$1" >&2
    fi
}

# at_least WANTED FOUND: fails with a message if the release FOUND is older than WANTED.
at_least() {
    if [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) != "$1" ]]; then
        fail "release $2 is too old: $1 or later is needed; remove it or put a newer one first on PATH"
    fi
}
