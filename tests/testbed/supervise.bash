# shellcheck shell=bash
# Keeps a server running for exactly as long as the process that holds the other end of standard input.

# supervise DIR COMMAND…: runs COMMAND, writes its process id to DIR/pid and its output to DIR/log,
# and returns once it has ended: when standard input ends (status 0) or when the server dies by
# itself (status 1). COMMAND must become the server by `exec`, so that the id is the server's own.
supervise() {
    local directory=$1
    shift
    trap 'exit 143' INT TERM HUP
    trap end_children EXIT
    cat >/dev/null <&0 &
    owner=$!
    fake_clock "$directory"
    start_child "$directory" "$@"
    server=$child
    printf '%s\n' "$server" >"$directory/pid.part"
    mv "$directory/pid.part" "$directory/pid"
    say "process $server; log: $directory/log"
    wait -n "$owner" "$server" || true
    if ! kill -0 "$server" 2>/dev/null; then
        local status=0
        wait "$server" || status=$?
        fail "the server ended by itself with status $status; log: $directory/log"
    fi
}

# fake_clock DIR: if TESTBED_CLOCK is set, the server's clock follows the file DIR/clock from now on.
# Its contents are an offset, such as `+3600`. The monotonic clock is left alone, as by a real step.
fake_clock() {
    if [[ ! ${TESTBED_CLOCK-} ]]; then return; fi
    local library
    library=$(faketime_library)
    if [[ ! $library ]]; then debian_package libfaketime && library=$(faketime_library); fi
    [[ -e $1/clock ]] || printf '+0\n' >"$1/clock"
    # The C library comes next, because the allocator of Redis asks for the time before libfaketime is
    # ready to tell it.
    export LD_PRELOAD=$library:libc.so.6 FAKETIME_TIMESTAMP_FILE=$1/clock FAKETIME_CACHE_DURATION=1
    export FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_RESET=1
}

# Prints the path of libfaketime for programs with threads; nothing if it is not installed.
faketime_library() {
    local -a found=(/usr/lib/*/faketime/libfaketimeMT.so.1)
    if [[ -e ${found[0]} ]]; then printf '%s' "${found[0]}"; fi
}

# start_child DIR COMMAND…: runs COMMAND in the background and sets `child` to its process id. If
# this script itself is killed, the kernel kills the child.
start_child() {
    local directory=$1
    shift
    setpriv --pdeathsig KILL -- "$@" </dev/null >>"$directory/log" 2>&1 &
    child=$!
    children+=("$child")
}

children=()

# Ends the started processes, the last first: sends SIGTERM, waits ten seconds, then sends SIGKILL.
# A stopped process is continued, so that it receives the signal.
end_children() {
    local index child tenths
    if [[ -n ${owner:-} ]]; then kill "$owner" 2>/dev/null || true; fi
    for ((index = ${#children[@]} - 1; index >= 0; index--)); do
        child=${children[index]}
        kill -TERM "$child" 2>/dev/null || continue
        kill -CONT "$child" 2>/dev/null || continue
        for ((tenths = 0; tenths < 100; tenths++)); do
            kill -0 "$child" 2>/dev/null || continue 2
            sleep 0.1
        done
        kill -KILL "$child" 2>/dev/null || true
    done
}

# free_port NAME [TAKEN]…: sets the variable NAME to a free port other than these, at which nothing
# listens yet, and which no other server is about to take: that is told by locks, as in
# tests/support/place.rs. It is below the range from which the kernel picks the local ports of
# connections (32768 and up), so a client that keeps trying to connect cannot be given the port that
# a server needs after a restart.
free_port() {
    local found lock
    mkdir -p "$cache/ports"
    while true; do
        found=$((10000 + RANDOM % 20000))
        if [[ " ${*:2} " == *" $found "* ]]; then continue; fi
        # The server inherits the lock.
        exec {lock}>"$cache/ports/$found"
        if flock --nonblock "$lock" && ! (exec 4<>"/dev/tcp/127.0.0.1/$found") 2>/dev/null; then
            printf -v "$1" '%s' "$found"
            return
        fi
        exec {lock}>&-
    done
}

# Prints this node's port for the other nodes of its cluster; nothing if it is not in a cluster. A
# cluster is described by CLUSTER_NODE, the number of this node from 1 on, CLUSTER_PORTS, the ports
# for clients, and CLUSTER_PEERS, the ports for other nodes, both separated by spaces.
cluster_peer() {
    local -a peers
    read -r -a peers <<<"${CLUSTER_PEERS-}"
    printf '%s' "${peers[${CLUSTER_NODE:-1} - 1]-}"
}

# peer_host NUMBER: prints the address at which this node reaches that node of its cluster. If
# CLUSTER_APART is set, each node has an address of its own for each other node, so that a proxy there
# can part any two of them.
peer_host() {
    if [[ ${CLUSTER_APART-} && $1 != "$CLUSTER_NODE" ]]; then
        printf '127.0.%s.%s' $((10 + CLUSTER_NODE)) "$1"
    else
        printf '127.0.0.1'
    fi
}
