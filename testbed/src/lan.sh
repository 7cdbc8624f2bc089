# The life of a network behind a host: run by `unshare --net --pid ...`, as `sh -c SCRIPT DIRECTORY`. Talks with the test on stdin and
# stdout: a line when the wire is there -> "ready"; the end of stdin is the end of everything.
set -eu
read -r line
ip link set lo up
ip address add 10.66.0.2/24 dev eth0
ip address add 10.66.0.3/24 dev eth0
ip address add fd66::2/64 dev eth0 nodad
ip link set eth0 up
exec 3<&0 </dev/null 4>&1 >"$0/log" 2>&1
nginx -p "$0" -c "$0/nginx.conf" &
dnsmasq --keep-in-foreground --user=root --conf-file=/dev/null --pid-file="$0/dnsmasq.pid" --no-resolv --no-hosts --cache-size=1000 \
    --listen-address=10.66.0.2 --bind-interfaces --dns-forward-max=10000 --local=/inside.example/ \
    --host-record=web.inside.example,10.66.0.2,fd66::2 --host-record=four.inside.example,10.66.0.2 \
    --txt-record=long.inside.example,"$(printf '%0250d' 1)","$(printf '%0250d' 2)","$(printf '%0250d' 3)","$(printf '%0250d' 4)","$(printf '%0250d' 5)","$(printf '%0250d' 6)","$(printf '%0250d' 7)" &
iperf3 --server --bind 10.66.0.2 --port 5201 &
iperf3 --server --bind 10.66.0.2 --port 5202 &
until [ "$(ss -Hltn | grep -c -E ':(80|53|5201|5202) ')" -ge 5 ]; do sleep 0.02; done
echo ready >&4
exec 4>&-
cat <&3 >/dev/null
