# The life of a container engine, a cluster, or a network by itself: run as root in mount, pid, net and uts namespaces of its
# own by `sh -c "$SCRIPT" testbed KIND`. $ROOM: a directory of the test, for sockets and files. Says "ready PID", the process
# id of its init as seen from outside, and ends with its standard input, taking all processes along.
set -eu
kind=$1
read -r pid rest </proc/self/stat
# Its cgroups, if the machine's engines have none of that name: see the end.
group=remotely-testbed-$pid
mount -t proc proc /proc
mount -t tmpfs -o mode=755 run /run
ip link set lo up
hostname cluster
printf '127.0.0.1 localhost cluster\n' >"$ROOM/hosts"
mount --bind "$ROOM/hosts" /etc/hosts
mkdir -p "$ROOM/state"
mount -t tmpfs -o mode=755 state "$ROOM/state"
exec 3>&1 >"$ROOM/log" 2>&1

# busybox, what it is linked with, and nothing else.
make_image() {
    mkdir -p "$ROOM/state/root/bin" "$ROOM/state/root/tmp" "$ROOM/state/naked/bin" "$ROOM/state/root/root"
    for file in /bin/busybox $(ldd /bin/busybox | grep -o '/[^ ]*' || true); do
        for root in root naked; do
            mkdir -p "$ROOM/state/$root${file%/*}"
            cp -L "$file" "$ROOM/state/$root$file"
        done
    done
    for name in $(/bin/busybox --list); do ln -sf /bin/busybox "$ROOM/state/root/bin/$name"; done
    # It has no shell, and no program that could be one.
    mv "$ROOM/state/naked/bin/busybox" "$ROOM/state/naked/bin/sleep"
    for root in root naked; do tar -C "$ROOM/state/$root" -cf "$ROOM/state/$root.tar" .; done
}

# A container that runs, one that was stopped, and one that runs without a shell; images `box` and `naked`.
make_containers() {
    "$@" import "$ROOM/state/root.tar" localhost/box:1
    "$@" import "$ROOM/state/naked.tar" localhost/naked:1
    "$@" run -d --name box localhost/box:1 /bin/sleep 100000
    "$@" run -d --name naked localhost/naked:1 /bin/sleep 100000
    "$@" create --name stopped localhost/box:1 /bin/sleep 100000
}

start_docker() {
    make_image
    dockerd --data-root "$ROOM/state/data" --exec-root "$ROOM/state/exec" --pidfile "$ROOM/state/pid" \
        --host "unix://$ROOM/docker.sock" --iptables=false --bridge=none --cgroup-parent "/$group" &
    export DOCKER_HOST="unix://$ROOM/docker.sock" HOME="$ROOM"
    within 200 docker version
    make_containers docker
}

start_podman() {
    make_image
    cat >"$ROOM/containers.conf" <<END
[engine]
runtime="runc"
cgroup_manager="cgroupfs"
events_logger="file"
[containers]
default_ulimits=["nofile=1000:1000", "nproc=4096:4096"]
netns="none"
END
    printf '[storage]\ndriver="overlay"\ngraphroot="%s"\nrunroot="%s"\n' "$ROOM/state/graph" "$ROOM/state/run" \
        >"$ROOM/storage.conf"
    export CONTAINERS_CONF="$ROOM/containers.conf" CONTAINERS_STORAGE_CONF="$ROOM/storage.conf" HOME="$ROOM"
    make_containers podman
}

# Waits until a command succeeds, so many times 50 ms at most.
within() {
    left=$1
    shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ $left -gt 0 ] || { echo "not within its time: $*"; exit 1; }
        sleep 0.05
    done
}

test_idle() { [ "$(sinfo -h -o %T)" = idle ]; }

# Two nodes on one machine, and an allocation of the second with the number 1.
start_slurm() {
    # The resolver leaves out families of which only the loopback device has an address.
    ip link add eth0 type veth peer name eth1
    ip address add 10.77.255.1/30 dev eth0
    ip link set eth0 up
    mkdir -p "$ROOM/state/controller" "$ROOM/state/n0" "$ROOM/state/n1"
    head -c 1024 /dev/urandom >"$ROOM/state/key"
    chmod 400 "$ROOM/state/key"
    munged --force --key-file="$ROOM/state/key" --socket="$ROOM/state/munge" --pid-file="$ROOM/state/munge.pid" \
        --log-file="$ROOM/state/munge.log" --seed-file="$ROOM/state/munge.seed"
    cat >"$ROOM/slurm.conf" <<END
ClusterName=testbed
SlurmctldHost=cluster(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$ROOM/state/munge
StateSaveLocation=$ROOM/state/controller
SlurmdSpoolDir=$ROOM/state/%n
SlurmctldPidFile=$ROOM/state/controller.pid
SlurmdPidFile=$ROOM/state/%n.pid
SlurmctldLogFile=$ROOM/controller.log
SlurmdLogFile=$ROOM/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=n[0-1] NodeHostname=cluster NodeAddr=127.0.0.1 Port=[17000-17001] CPUs=2 RealMemory=100 State=UNKNOWN
PartitionName=p Nodes=n[0-1] Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
END
    export SLURM_CONF="$ROOM/slurm.conf"
    slurmctld -c
    slurmd -N n0
    slurmd -N n1
    within 200 test_idle
    salloc --no-shell -w n1
}

start_netns() {
    ip netns add blue
    ip netns exec blue ip link set lo up
}

"start_$kind"
echo "ready $pid $group" >&3
exec 3>&-
cat >/dev/null
