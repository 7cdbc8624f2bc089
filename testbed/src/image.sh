# Makes the root of a Debian 12 host without compiler and python. $ROOM: empty directory, $MIRROR: where the packages are.
set -eu
root=$ROOM/root
debootstrap --variant=minbase \
    --include=openssh-server,iproute2,procps,sudo,uidmap,csh,busybox,libstdc++6 bookworm "$root" "$MIRROR"

# fish without its dependency on python: unpacked, not installed.
chroot "$root" sh -euc '
    apt-get update
    cd /tmp
    apt-get download fish fish-common libpcre2-32-0
    for package in *.deb; do dpkg -x "$package" /; done
    rm -f ./*.deb
    printf "%s\n" /usr/bin/fish /opt/busybox/sh >>/etc/shells'

# A login shell that is busybox and finds no other tool.
mkdir -p "$root/opt/busybox"
chroot "$root" /bin/busybox --install -s /opt/busybox

rm -rf "$root"/var/cache/apt "$root"/var/lib/apt/lists "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/locale
rm -f "$root"/etc/resolv.conf "$root"/etc/hostname "$root"/etc/ssh/ssh_host_*
ssh-keygen -q -t ed25519 -N '' -C testbed-host -f "$root/etc/ssh/ssh_host_ed25519_key"
ssh-keygen -q -t ed25519 -N '' -C testbed-client -f "$ROOM/key"
mkdir -p "$root/etc/ssh/keys"
cat >"$root/etc/ssh/sshd_config" <<'END'
Include /etc/ssh/sshd_config.d/*.conf
AuthorizedKeysFile /etc/ssh/keys/%u
StrictModes no
UsePAM no
UseDNS no
MaxStartups 500
PrintMotd no
PrintLastLog no
X11Forwarding yes
AcceptEnv LANG LC_*
PidFile /run/sshd.pid
Subsystem sftp /usr/lib/openssh/sftp-server
END
