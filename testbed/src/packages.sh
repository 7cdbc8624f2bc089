# Adds Debian packages to a copy of the hosts' root. $ROOM: empty directory, $FROM: the root, $PACKAGES: their names.
set -eu
root=$ROOM/root
cp -a --reflink=auto "$FROM" "$root"
cat /etc/resolv.conf >"$root/etc/resolv.conf"
# shellcheck disable=SC2086
chroot "$root" env DEBIAN_FRONTEND=noninteractive sh -euc '
    apt-get update
    apt-get install -y --no-install-recommends "$@"' sh $PACKAGES
rm -rf "$root"/etc/resolv.conf "$root"/var/cache/apt "$root"/var/lib/apt/lists
