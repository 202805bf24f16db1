# shellcheck shell=bash
# Servers of Debian 13 on an older Debian: a small Debian 13 is kept in the cache, and a server
# sees its /usr in the place of the machine's. Everything else is shared, so paths and process ids
# are the same for the server and for its owner. A script sources this file after verbs.bash, calls
# `runs SCRIPT PROGRAM` with the script of the same server in the machine's own release, and ends
# with `run_verb "$@"`.
source "$testbed/mounts.bash"

debian_13=debian-13-rabbitmq-$RABBITMQ_4-redis-$REDIS_8-valkey-$VALKEY

runs() {
    older_script=$testbed/$1
}

install() {
    if [[ -d $cache/$debian_13 ]]; then return; fi
    ((EUID == 0)) || fail "only root can install a Debian 13 beside the machine's system: run '$0 install' as root"
    [[ -L /bin && -L /lib ]] || fail "/bin and /lib are not in /usr on this machine: it cannot use the /usr of Debian 13"
    if ! command -v debootstrap >/dev/null; then debian_package debootstrap; fi
    cached "$debian_13" bootstrap_debian_13
}

serve() {
    mounted "$cache/$debian_13/usr" /usr
    exec "${mounted[@]}" "$older_script" serve "$@"
}

ready() {
    "$older_script" ready "$@"
}

# bootstrap_debian_13 FOLDER
bootstrap_debian_13() {
    local mirror
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 'Component: main' | head -n 1)
    [[ -n $mirror ]] || fail "apt has no mirror of Debian: check its sources, and run 'apt-get update'"
    # Services of its packages are not started, with this policy.
    mkdir -p "$1/usr/sbin"
    printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
    chmod +x "$1/usr/sbin/policy-rc.d"
    # Without this option, a missing key ring of Debian would be a warning only.
    nice debootstrap --force-check-gpg --variant=minbase --include=rabbitmq-server,redis-server,valkey-server \
        trixie "$1" "$mirror" >&2 || fail "debootstrap could not install Debian 13 (see above, and $1/debootstrap/debootstrap.log)"
    has_release "$1" rabbitmq-server "$RABBITMQ_4"
    has_release "$1" redis-server "$REDIS_8"
    has_release "$1" valkey-server "$VALKEY"
    rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*
}

# has_release FOLDER PACKAGE RELEASE: fails with a message if the package has an older release.
has_release() {
    local found
    found=$(dpkg-query --root="$1" --show --showformat '${Version}' "$2")
    found=${found#*:}
    at_least "$3" "${found%%[-+]*}"
}
