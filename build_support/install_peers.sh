#!/bin/sh
# Install the other SSH implementations that the interop tests talk to, from Debian's packages, and a Kerberos KDC with
# what the gssapi package is built with. Needs root.
set -eu

packages='curl redis-server redis-tools openssh-client openssh-server dropbear-bin libnss-wrapper rclone lftp putty-tools bc krb5-kdc krb5-admin-server krb5-user libkrb5-dev xvfb xauth x11-utils iproute2'
missing=
for package in $packages; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "Missing:$missing. To install them: sudo apt-get install$missing" >&2
    exit 1
fi

# The tests start their own servers: keep the packages from starting theirs.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' > $policy
    chmod 755 $policy
    trap 'rm -f $policy' EXIT
    trap 'exit 130' INT TERM
fi
apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends $missing
