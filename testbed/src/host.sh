# The life of a host: run as root by `unshare --mount`, as `sh -c 'eval "$SCRIPT"' testbed STAGE`, first with stage devices:
#   devices  in the machine's own user namespace: device nodes, and a user namespace of its own where asked ($USERNS=own)
#   root     in all its namespaces: an overlay root, pivot_root, network
#   init     inside the new root: sshd, then wait for the end of stdin
# Talks with the test on stdin and stdout: "pid N" -> "ADDRESS/BITS GATEWAY" -> "ready".
set -eu
stage=$1
again='eval "$SCRIPT"'

stage_devices() {
    mount -t tmpfs -o mode=755 testbed "$ROOM"
    mkdir "$ROOM/dev" "$ROOM/upper" "$ROOM/work" "$ROOM/root"
    mount -t tmpfs -o mode=755 dev "$ROOM/dev"
    cd "$ROOM/dev"
    for node in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0'; do
        # shellcheck disable=SC2086
        set -- $node; mknod -m 666 "$1" c "$2" "$3"
    done
    mkdir net pts shm; mknod -m 666 net/tun c 10 200
    case $FUSE in
    usable) mknod -m 666 fuse c 10 229 ;;
    forbidden) mknod -m 600 fuse c 10 229 ;;
    missing) ;;
    esac
    ln -s pts/ptmx ptmx; ln -s /proc/self/fd fd
    ln -s fd/0 stdin; ln -s fd/1 stdout; ln -s fd/2 stderr
    cd /
    set -- unshare --net --mount --pid --uts --ipc --fork --kill-child=KILL --propagation private \
        sh -c "$again" testbed root
    [ "$USERNS" = own ] || exec "$@"
    # The ids must be mapped before the first exec inside, or that exec drops all capabilities.
    unshare --user sleep infinity >/dev/null & holder=$!
    while [ "$(readlink /proc/$holder/ns/user)" = "$(readlink /proc/self/ns/user)" ]; do sleep 0.01; done
    echo '0 0 4294967295' >/proc/$holder/uid_map
    echo '0 0 4294967295' >/proc/$holder/gid_map
    trap 'kill -9 $holder' EXIT
    nsenter --user --target $holder --setuid 0 --setgid 0 "$@"
}

stage_root() {
    read -r pid rest </proc/self/stat
    echo "pid $pid"
    read -r address gateway
    options=lowerdir=$LOWER,upperdir=$ROOM/upper,workdir=$ROOM/work
    [ "$USERNS" != own ] || options=$options,userxattr
    mount -t overlay -o "$options" overlay "$ROOM/root"
    cd "$ROOM/root"
    mount --rbind "$ROOM/dev" dev
    mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
    mount -t tmpfs -o mode=1777 shm dev/shm
    mount -t tmpfs -o mode=1777 tmp tmp
    mount -t tmpfs -o mode=755 run run
    mkdir run/sshd
    mount -t proc proc proc
    mount -t sysfs sysfs sys
    printf '%s\n' "$MOUNTS" | while read -r path option; do
        case $option in
        '') ;;
        size=*) owner=$(stat -c uid=%u,gid=%g ".$path"); mount -t tmpfs -o "$option,$owner" full ".$path" ;;
        *) mount --bind ".$path" ".$path"; mount -o "remount,bind,$option" ".$path" ;;
        esac
    done
    hostname "$NAME"
    # The tools of the machine, not those of the root: it may have none.
    ip link set lo up
    if [ -n "$gateway" ]; then
        ip address add "$address" dev eth0
        ip link set eth0 up
        ip route add default via "$gateway"
    fi
    pivot_root . mnt
    exec chroot . /bin/sh -c "$again" testbed init
}

stage_init() {
    umount -l /mnt
    cd /
    [ "$USERNS" != own ] || echo 0 >/proc/sys/user/max_user_namespaces
    # Its log goes to stderr, which is a file of the test.
    # shellcheck disable=SC2086
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
        /usr/sbin/sshd -D -e $SSHD_OPTIONS </dev/null >/dev/null &
    while [ ! -e /run/sshd.pid ]; do sleep 0.01; done
    exec 3<&0 </dev/null
    # `wait` reaps orphans as an init must; `cat` ends when the test does, however it does.
    cat <&3 >/dev/null &
    echo ready
    exec >/dev/null
    wait $!
}

"stage_$stage"
