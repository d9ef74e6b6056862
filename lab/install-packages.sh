#!/bin/sh
# Installs what the named lists (lab/packages.txt by default) hold and dpkg does not know as installed; silent when
# nothing is missing.
set -eu

fail() {
    echo "install-packages: $*" >&2
    exit 1
}

[ $# -gt 0 ] || set -- "$(dirname "$0")/packages.txt"
packages=$(sed 's/#.*//' "$@" | xargs)
command -v dpkg-query >/dev/null || fail "this is no Debian: install the counterparts of: $packages"

missing=
for package in $packages; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif command -v sudo >/dev/null; then
    as_root=sudo
else
    fail "run as root: apt-get install --no-install-recommends$missing"
fi

echo "installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Another package manager may be at work, for example right after boot.
apt() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1 ||
        fail "apt-get $1 failed: $(grep '^E:' "$log" | head -n 1)"
}
apt update
# shellcheck disable=SC2086 # a list of words
apt install -y --no-install-recommends $missing
