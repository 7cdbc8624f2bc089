# What doctor asks a host, in POSIX sh, on one line (see host.rs). Each answer is a line "remotely-doctor NAME VALUE".
say() { echo "remotely-doctor $*"; };
value() { read -r v <"$2" && say $1 $v; };
say machine $(uname -s) $(uname -m);
say kernel $(uname -r);
say time $(date +%s.%N);
u=$(id -u); n=$(id -un);
say user $u $n;
{
  value max-namespaces /proc/sys/user/max_user_namespaces;
  value userns-clone /proc/sys/kernel/unprivileged_userns_clone;
  value apparmor-userns /proc/sys/kernel/apparmor_restrict_unprivileged_userns;
  command -v unshare && { unshare --user --map-root-user --mount true && say unshare yes || say unshare no; };
  if [ -c /dev/fuse ]; then if [ -r /dev/fuse ] && [ -w /dev/fuse ]; then say fuse usable; else say fuse forbidden; fi; else say fuse missing; fi;
  grep -q -e "^$n:" -e "^$u:" /etc/subuid && command -v newuidmap && say subuid yes;
  sudo -n true && say sudo yes;
  command -v gzip && say gzip yes;
} 2>/dev/null;
say end
