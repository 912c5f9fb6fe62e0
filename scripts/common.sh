# Shared by the scripts here, which source it: where the checkout is, and how to install by apt.
# Sets `root` (the checkout) and `python` (its virtual environment's interpreter).

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck disable=SC2034 # used by those who source this
python=$root/.venv/bin/python
script=$(basename "$0")

say() { printf '%s: %s\n' "$script" "$*" >&2; }

die() {
    say "$*"
    exit 1
}

is_root_with_apt() { [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; }

# Run a chatty command; show what it said only when it fails.
quietly() {
    local output status=0
    output=$(mktemp)
    "$@" >"$output" 2>&1 </dev/null || status=$?
    if [ "$status" -ne 0 ]; then
        tail -n 25 "$output" >&2
    fi
    rm -f "$output"
    return "$status"
}

# Fetch apt's package lists where there are none (container images come without).
apt_lists() {
    if ! find /var/lib/apt/lists -name '*_Packages*' -print -quit 2>/dev/null | grep -q .; then
        say "fetching the package lists"
        quietly apt-get -q update
    fi
}

# Make services that are being installed not start: we start our own servers, when needed.
_no_services() {
    local policy=/usr/sbin/policy-rc.d
    # Ours may have outlived a killed run.
    if [ ! -e "$policy" ] || grep -q 'made by tickstock' "$policy"; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\n# made by tickstock for a moment\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
}

_apt_get_install() {
    DEBIAN_FRONTEND=noninteractive quietly apt-get -q -y -o Dpkg::Use-Pty=0 \
        -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
}

# apt_install PACKAGE...: leaves nothing running; fetches the lists again if they are out of date.
apt_install() (
    apt_lists
    _no_services
    say "installing $* (apt)"
    if ! _apt_get_install "$@" 2>/dev/null; then
        quietly apt-get -q update
        _apt_get_install "$@"
    fi
)
