# shellcheck shell=bash
# Mounts that exist for one process and its children only, and end with them.

# mounted SOURCE TARGET: sets `mounted` to the beginning of a command. The rest of that command sees
# SOURCE in the place of TARGET. The command keeps its process id and its user.
mounted() {
    mounted=(unshare --mount)
    if ((EUID != 0)); then mounted+=(--map-root-user); fi
    # shellcheck disable=SC2016  # expanded by the inner bash
    mounted+=(bash -c 'mount --bind "$0" "$1" && shift && exec "$@"' "$1" "$2")
}
