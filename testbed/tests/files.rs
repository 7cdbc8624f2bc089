//! Files: what a command does there to the files of here is what it would do here. Scripts of python run on both sides and
//! are compared.

use std::time::Duration;

use testbed::{Checks, HostOptions, Pair, Process, Wire};

#[test]
fn writing_and_modes() {
    let pair = Pair::start();
    let mut checks = Checks::on(&pair);
    checks.same_python(
        "append",
        r#"
for i in range(3):
    with open('a', 'a') as f: f.write('line %d\n' % i)
t('content', lambda: get('a'))
a = os.open('a', os.O_WRONLY | os.O_APPEND); b = os.open('a', os.O_WRONLY | os.O_APPEND)
os.write(a, b'A'); os.write(b, b'B'); os.lseek(a, 0, 0); os.write(a, b'C')
t('two descriptors', lambda: get('a')[-3:])
t('append flag', lambda: bool(fcntl.fcntl(a, fcntl.F_GETFL) & os.O_APPEND))
t('pwrite of an append descriptor', lambda: (os.pwrite(a, b'D', 0), get('a')[-1:]))
"#,
    );
    checks.same_python(
        "modes",
        r#"
os.umask(0o022)
t('0640', lambda: (put('m', b'', mode=0o640), mode('m')))
t('0777', lambda: (put('n', b'', mode=0o777), mode('n')))
os.umask(0o077)
t('umask 077', lambda: (put('o', b'', mode=0o666), mode('o'), os.mkdir('d', 0o777), mode('d')))
os.umask(0o022)
t('chmod', lambda: (os.chmod('m', 0o4751), mode('m')))
t('write drops setuid', lambda: (put('m', b'x', os.O_WRONLY), mode('m')))
t('setgid directory', lambda: (os.mkdir('s'), os.chmod('s', 0o2775), os.mkdir('s/t'), mode('s'), mode('s/t')))
t('sticky', lambda: (os.chmod('d', 0o1777), mode('d')))
t('no write', lambda: (os.chmod('n', 0o444), os.open('n', os.O_WRONLY)))
t('written through an open descriptor', lambda: os.write(os.open('ro', os.O_WRONLY | os.O_CREAT, 0o400), b'x'))
t('fchmod', lambda: (os.fchmod(os.open('m', os.O_RDONLY), 0o600), mode('m')))
t('access', lambda: [os.access('n', how) for how in (os.R_OK, os.W_OK, os.X_OK, os.F_OK)])
t('exec bit', lambda: (os.chmod('o', 0o100), os.access('o', os.X_OK), os.access('o', os.R_OK)))
"#,
    );
    checks.same_python("open flags",
        r#"
t('excl', lambda: (put('x', b'1', os.O_WRONLY | os.O_CREAT | os.O_EXCL), put('x', b'2', os.O_WRONLY | os.O_CREAT | os.O_EXCL)))
t('excl kept', lambda: get('x'))
os.symlink('nowhere', 'dangling'); os.symlink('x', 'link')
t('excl through a link', lambda: put('dangling', b'2', os.O_WRONLY | os.O_CREAT | os.O_EXCL))
t('create through a dangling link', lambda: (put('dangling', b'3'), get('nowhere')))
t('nofollow', lambda: os.open('link', os.O_RDONLY | os.O_NOFOLLOW))
t('directory', lambda: os.open('x', os.O_RDONLY | os.O_DIRECTORY))
t('write a directory', lambda: os.open('.', os.O_WRONLY))
t('missing', lambda: os.open('no', os.O_RDONLY))
t('through a file', lambda: os.open('x/y', os.O_RDONLY))
t('trailing slash', lambda: os.open('x/', os.O_RDONLY))
t('loop', lambda: (os.symlink('l2', 'l1'), os.symlink('l1', 'l2'), os.open('l1', os.O_RDONLY)))
t('trunc', lambda: (put('x', b'12345'), put('x', b'9', os.O_WRONLY | os.O_TRUNC), get('x')))
t('no trunc', lambda: (put('x', b'12345'), put('x', b'9', os.O_WRONLY), get('x')))
t('truncate', lambda: (os.truncate('x', 2), get('x'), os.truncate('x', 4), get('x')))
t('ftruncate a read descriptor', lambda: os.ftruncate(os.open('x', os.O_RDONLY), 0))
t('path', lambda: os.fstat(os.open('x', os.O_PATH)).st_size)
t('read a write descriptor', lambda: os.read(os.open('x', os.O_WRONLY), 1))
t('sync', lambda: (os.fsync(os.open('x', os.O_RDONLY)), os.fdatasync(os.open('x', os.O_WRONLY)), os.fsync(os.open('.', os.O_RDONLY))))
fd = os.open('x', os.O_RDWR); other = os.dup(fd)
t('shared offset', lambda: (os.read(fd, 2), os.read(other, 1)))
t('past the end', lambda: (os.lseek(fd, 100, 0), os.read(fd, 1), os.write(fd, b'e'), len(get('x'))))
"#,
    );
    checks.same_python("unlinked",
        r#"
fd = os.open('u', os.O_RDWR | os.O_CREAT)
os.write(fd, b'still'); os.unlink('u')
t('read', lambda: os.pread(fd, 10, 0))
t('write', lambda: (os.pwrite(fd, b'more', 5), os.pread(fd, 20, 0)))
t('nlink', lambda: os.fstat(fd).st_nlink)
t('nothing to see', lambda: os.listdir('.'))
t('chmod', lambda: (os.fchmod(fd, 0o600), oct(os.fstat(fd).st_mode)))
t('truncate', lambda: (os.ftruncate(fd, 3), os.fstat(fd).st_size))
put('v', b'old'); old = os.open('v', os.O_RDONLY); put('w', b'new'); os.rename('w', 'v')
t('replaced', lambda: (os.pread(old, 9, 0), get('v'), os.fstat(old).st_nlink))
os.mkdir('d'); d = os.open('d', os.O_RDONLY); os.rmdir('d')
t('removed directory', lambda: (os.listdir(d), os.fstat(d).st_nlink))
t('create in it', lambda: os.open('x', os.O_WRONLY | os.O_CREAT, dir_fd=d))
fd = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o640); os.write(fd, b'tmpfile')
t('tmpfile', lambda: (os.listdir('.') == ['v'], os.fstat(fd).st_nlink, oct(os.fstat(fd).st_mode)))
t('tmpfile linked', lambda: (os.link('/proc/self/fd/%d' % fd, 't', follow_symlinks=True), get('t'), os.fstat(fd).st_nlink))
"#,
    );
    checks.finish();
}

#[test]
fn names_links_and_directories() {
    let pair = Pair::start();
    let mut checks = Checks::on(&pair);
    checks.same_python("links",
        r#"
put('a', b'one'); os.link('a', 'b')
t('nlink', lambda: (os.stat('a').st_nlink, os.stat('b').st_nlink, os.stat('a').st_ino == os.stat('b').st_ino))
t('one file', lambda: (put('b', b'two'), get('a'), os.stat('a').st_size))
t('unlink one', lambda: (os.unlink('a'), os.stat('b').st_nlink, get('b')))
t('link exists', lambda: (put('a', b''), os.link('b', 'a')))
t('link a directory', lambda: (os.mkdir('d'), os.link('d', 'e')))
t('symlink', lambda: (os.symlink('../x/y z', 's'), os.readlink('s'), os.lstat('s').st_size))
t('long symlink', lambda: (os.symlink('p/' * 2000, 'long'), len(os.readlink('long'))))
t('too long symlink', lambda: os.symlink('p' * 4096, 'longer'))
t('link to a link', lambda: (os.link('s', 'h', follow_symlinks=False), stat.S_ISLNK(os.lstat('h').st_mode), os.lstat('s').st_nlink))
t('nlink of directories', lambda: (os.stat('.').st_nlink, os.mkdir('d/d'), os.stat('d').st_nlink, os.rmdir('d/d'), os.stat('d').st_nlink))
"#,
    );
    checks.same_python(
        "rename",
        r#"
def rename(a, b, flags): call('renameat2', AT, a.encode(), AT, b.encode(), flags)
put('a', b'A'); put('b', b'B'); os.mkdir('d'); os.mkdir('e'); put('e/f', b'')
t('exchange', lambda: (rename('a', 'b', 2), get('a'), get('b')))
t('exchange file and directory', lambda: (rename('a', 'd', 2), os.path.isdir('a'), get('d'), rename('a', 'd', 2)))
t('exchange with nothing', lambda: rename('a', 'no', 2))
t('noreplace', lambda: rename('a', 'b', 1))
t('noreplace free', lambda: (rename('a', 'c', 1), get('c'), os.path.exists('a')))
t('over', lambda: (os.rename('c', 'b'), get('b'), sorted(os.listdir('.'))))
t('directory over non-empty', lambda: os.rename('d', 'e'))
t('directory over empty', lambda: (os.rename('e', 'd'), os.listdir('d')))
t('file over directory', lambda: os.rename('b', 'd'))
t('directory over file', lambda: os.rename('d', 'b'))
t('into itself', lambda: os.rename('d', 'd/x'))
t('to itself', lambda: (os.rename('b', 'b'), get('b')))
t('same file', lambda: (os.link('b', 'c'), os.rename('b', 'c'), sorted(os.listdir('.'))))
t('between directories', lambda: (os.mkdir('g'), os.rename('d', 'g/d'), os.listdir('g/d'), os.path.exists('d')))
t('dotdot after it', lambda: os.path.samefile('g/d/..', 'g'))
"#,
    );
    checks.same_python(
        "removal and kinds",
        r#"
os.mkdir('d'); put('d/f', b'')
t('rmdir non-empty', lambda: os.rmdir('d'))
t('unlink a directory', lambda: os.unlink('d'))
t('rmdir a file', lambda: os.rmdir('d/f'))
t('rmdir', lambda: (os.unlink('d/f'), os.rmdir('d'), os.listdir('.')))
t('mkdir twice', lambda: (os.mkdir('d'), os.mkdir('d')))
t('fifo', lambda: (os.mkfifo('p', 0o620), mode('p')))
def through():
    r = os.open('p', os.O_RDONLY | os.O_NONBLOCK); w = os.open('p', os.O_WRONLY)
    os.write(w, b'fifo'); return os.read(r, 9)
t('through the fifo', through)
def talk():
    s = socket.socket(socket.AF_UNIX); s.bind('s'); s.listen()
    c = socket.socket(socket.AF_UNIX); c.connect('s'); p, _ = s.accept()
    c.send(b'hi'); return p.recv(9), stat.S_ISSOCK(os.stat('s').st_mode)
t('socket', talk)
t('device', lambda: os.mknod('n', stat.S_IFCHR | 0o666, os.makedev(1, 3)))
t('mknod of a file', lambda: (os.mknod('r', stat.S_IFREG | 0o600), mode('r')))
t('statfs', lambda: [getattr(os.statvfs('.'), f) for f in ('f_frsize', 'f_blocks', 'f_namemax')])
"#,
    );
    checks.same_python("names",
        r#"
names = [b'bad\xff\xfename', b'new\nline', b' lead', b'-dash', b'*?', b'\\', b'"\'', b'\x01\x7f', '\u00e9\u4e2d'.encode(), b'n' * 255]
for n in names: put(n, n)
t('listed', lambda: sorted(os.listdir(b'.')) == sorted(names))
t('read', lambda: [get(n) == n for n in names])
t('too long', lambda: put(b'n' * 256, b''))
t('path too long', lambda: os.open(b'd/' * 2050 + b'f', os.O_RDONLY))
t('missing odd', lambda: os.stat(b'no\xff'))
t('dots', lambda: (os.stat('.').st_ino == os.stat('./././.').st_ino, os.path.samefile('..', os.getcwd() + '/..')))
os.mkdir(b'dir\xff'); os.chdir(b'dir\xff')
t('cwd', lambda: os.getcwdb()[-5:])
deep = os.getcwd()
for i in range(300): os.mkdir('0123456789'); os.chdir('0123456789')
t('deep', lambda: len(os.getcwd()) - len(deep))
put('f', b'deep'); t('in the deep', lambda: get('f'))
"#,
    );
    checks.gives("listed here", "$RUN touch \"$(printf 'bad\\xffname')\"; ls -b", "bad\\377name\n");
    checks.finish();
}

#[test]
fn times_and_attributes() {
    let pair = Pair::start();
    let mut checks = Checks::on(&pair);
    checks.same_python("times",
        r#"
put('a', b'x')
ns = 123456789012345678
t('utimens', lambda: (os.utime('a', ns=(ns + 1, ns)), os.stat('a').st_atime_ns, os.stat('a').st_mtime_ns))
t('before 1970', lambda: (os.utime('a', ns=(-1500000001, -1)), os.stat('a').st_atime_ns, os.stat('a').st_mtime_ns))
t('after 2038', lambda: (os.utime('a', (1 << 32, 1 << 32)), os.stat('a').st_mtime))
os.symlink('a', 'l')
t('of a link', lambda: (os.utime('l', ns=(5, 6), follow_symlinks=False), os.lstat('l').st_mtime_ns, os.stat('a').st_mtime))
t('write changes them', lambda: (os.utime('a', ns=(1, 1)), put('a', b'y'), os.stat('a').st_mtime_ns > ns))
t('chmod changes ctime only', lambda: (os.utime('a', ns=(1, 1)), os.chmod('a', 0o600), os.stat('a').st_mtime_ns, os.stat('a').st_ctime_ns > ns))
t('kept while open', lambda: (lambda fd: (os.write(fd, b'zz'), os.utime('a', ns=(7, 7)), os.close(fd), os.stat('a').st_mtime_ns))(os.open('a', os.O_WRONLY)))
os.mkdir('d'); os.utime('d', ns=(1, 1))
t('directory', lambda: (put('d/f', b''), os.stat('d').st_mtime_ns > ns))
t('by the clock of here', lambda: abs(os.stat('d').st_mtime - __import__('time').time()) < 5)
def not_mine():
    # EOVERFLOW where the owner has no number in a user namespace.
    try: os.utime('/etc/hostname', ns=(1, 1))
    except OSError as e: return 'refused' if e.errno in (errno.EPERM, errno.EOVERFLOW) else e
t('not mine', not_mine)
"#,
    );
    checks.same_python("extended attributes",
        r#"
put('a', b'')
t('set', lambda: (os.setxattr('a', 'user.a', b'v\x00\xff'), os.getxattr('a', 'user.a')))
t('list', lambda: os.listxattr('a'))
t('create again', lambda: os.setxattr('a', 'user.a', b'', os.XATTR_CREATE))
t('replace missing', lambda: os.setxattr('a', 'user.b', b'', os.XATTR_REPLACE))
t('missing', lambda: os.getxattr('a', 'user.b'))
t('large', lambda: (os.setxattr('a', 'user.l', b'x' * 3000), len(os.getxattr('a', 'user.l'))))
t('remove', lambda: (os.removexattr('a', 'user.a'), os.removexattr('a', 'user.l'), os.listxattr('a')))
t('remove missing', lambda: os.removexattr('a', 'user.a'))
t('trusted', lambda: os.setxattr('a', 'trusted.a', b'x'))
t('odd', lambda: os.setxattr('a', 'nonsense', b'x'))
t('of a directory', lambda: (os.setxattr('.', 'user.d', b'x'), os.getxattr('.', 'user.d'), os.removexattr('.', 'user.d')))
"#,
    );
    checks.finish();
}

#[test]
fn data() {
    let pair = Pair::start();
    let mut checks = Checks::on(&pair);
    checks.same_python(
        "mmap",
        r#"
put('a', b'0123456789' * 1000)
f = open('a', 'r+b'); m = mmap.mmap(f.fileno(), 0)
t('read', lambda: m[5000:5005])
def write(): m[10:14] = b'MMAP'; m.flush(); return get('a')[8:16]
t('shared', write)
t('seen by mmap', lambda: (os.pwrite(f.fileno(), b'pw', 0), m[0:2]))
p = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE); p[0:3] = b'prv'
t('private', lambda: (p[0:3], get('a')[0:3]))
def last(): m[9999:10000] = b'Z'; m.close(); f.close(); return get('a')[-1:]
t('closed without flush', last)
pid = os.fork()
if pid == 0:
    with open('a', 'r+b') as f:
        m = mmap.mmap(f.fileno(), 0); m[0:5] = b'child'
    os._exit(0)
os.waitpid(pid, 0); t('by a child that is gone', lambda: get('a')[:5])
t('grown', lambda: (os.truncate('a', 20000), len(mmap.mmap(os.open('a', os.O_RDWR), 0))))
"#,
    );
    checks.same_python("space",
        r#"
fd = os.open('s', os.O_RDWR | os.O_CREAT)
def blocks(): return os.fstat(fd).st_blocks > 0
t('fallocate', lambda: (os.posix_fallocate(fd, 0, 1 << 20), os.fstat(fd).st_size, blocks()))
def fallocate(mode, at, size): call('fallocate', fd, mode, ctypes.c_long(at), ctypes.c_long(size))
t('keep size', lambda: (fallocate(1, 1 << 20, 1 << 20), os.fstat(fd).st_size))
t('data', lambda: (os.pwrite(fd, b'x' * 65536, 0), os.pwrite(fd, b'y' * 65536, 524288)))
t('punch', lambda: (fallocate(3, 0, 65536), os.pread(fd, 4, 0)))
t('zero range', lambda: (fallocate(16, 524288, 4096), os.pread(fd, 2, 524288 + 4095)))
t('bad', lambda: fallocate(0, -1, 5))
os.close(fd)
fd = os.open('h', os.O_RDWR | os.O_CREAT); os.pwrite(fd, b'd' * 4096, 1 << 20); os.pwrite(fd, b'e', 4 << 20); os.fsync(fd)
t('data at', lambda: os.lseek(fd, 0, os.SEEK_DATA))
t('hole at', lambda: os.lseek(fd, 1 << 20, os.SEEK_HOLE))
t('no data', lambda: os.lseek(fd, 5 << 20, os.SEEK_DATA))
t('sparse', lambda: os.fstat(fd).st_blocks * 512 < 1 << 20)
put('src', bytes(range(256)) * 4096); a = os.open('src', os.O_RDONLY); b = os.open('dst', os.O_RDWR | os.O_CREAT)
def copy():
    done = 0
    while n := os.copy_file_range(a, b, 1 << 30): done += n
    return done, get('src') == get('dst')
t('copy_file_range', copy)
t('sendfile', lambda: (os.sendfile(b, a, 0, 1000), os.lseek(b, 0, 1)))
t('direct', lambda: (lambda fd, m: (m.write(b'D' * 8192), os.writev(fd, [m]), os.close(fd), get('direct') == b'D' * 8192))(os.open('direct', os.O_RDWR | os.O_CREAT | os.O_DIRECT), mmap.mmap(-1, 8192)))
def read_direct():
    fd, m = os.open('src', os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, 8192)
    return os.preadv(fd, [m], 4096), m[:256] == bytes(range(256))
t('direct read', read_direct)
t('vectors', lambda: (os.pwritev(b, [b'ab', b'cd'], 10), os.preadv(b, [bytearray(3)], 10), os.pread(b, 4, 10)))
t('sync flags', lambda: put('sync', b'x', os.O_WRONLY | os.O_CREAT | os.O_SYNC))
"#,
    );
    checks.same_python(
        "large",
        r#"
fd = os.open('big', os.O_RDWR | os.O_CREAT)
at = (5 << 30) + 123
t('write beyond 4 GiB', lambda: (os.pwrite(fd, b'far', at), os.fstat(fd).st_size))
t('read it', lambda: (os.pread(fd, 9, at), os.pread(fd, 4, at - 4)))
t('seek', lambda: (os.lseek(fd, -3, 2), os.read(fd, 3)))
t('truncate', lambda: (os.ftruncate(fd, 6 << 30), os.stat('big').st_size))
t('mapped', lambda: mmap.mmap(fd, 4096, offset=5 << 30)[123:126])
t('too large', lambda: os.ftruncate(fd, 1 << 62))
"#,
    );
    checks.same(
        "md5 of 20 MiB both ways",
        "head -c 20971520 /dev/zero | tr '\\0' 'q' >in; $RUN cp in out; $RUN md5sum in out; md5sum out",
    );
    checks.finish();
}

#[test]
fn heavy_a_directory_of_100000_entries() {
    let pair = Pair::start();
    let many = pair.client.home().join("many").display().to_string();
    let make = format!(
        "import os; os.mkdir('{many}'); os.chdir('{many}')\nfor i in range(100000): open('entry-number-%06d' % i, 'w').close()"
    );
    let limit = Duration::from_secs(100);
    Process::start(pair.client.command("/usr/bin/python3").args(["-c", &make]), b"").wait(limit).success();
    let mut checks = Checks::on(&pair);
    checks.gives("count", &format!("$RUN ls -f {many} | wc -l"), "100002\n");
    let names = format!("cd {many}; $RUN sh -c 'ls entry-number-099999; test -e no-such-entry || echo none'");
    checks.gives("find by name", &names, "entry-number-099999\nnone\n");
    let remove = format!("$RUN sh -c 'cd {many}; echo entry-number-00* | xargs rm; ls | wc -l'; ls {many} | wc -l");
    let outcome = pair.there(&remove, limit);
    checks.holds("10,000 removed", outcome.text() == "90000\n90000\n", || outcome.to_string());
    checks.finish();
}

#[test]
fn a_rename_after_a_write_survives_everything() {
    // The way editors and package managers write: many small files, each written, synced, renamed.
    let pair = Pair::with(HostOptions::default(), Wire::rtt(5));
    let mut checks = Checks::on(&pair);
    checks.same_python("atomic replacement",
        r#"
for i in range(100):
    name = 'f%d' % (i % 10)
    with open(name + '.tmp', 'w') as f: f.write('%d\n' % i * i); f.flush(); os.fsync(f.fileno()) if i % 10 == 0 else None
    os.replace(name + '.tmp', name)
t('all', lambda: [len(get('f%d' % i)) for i in range(10)])
t('no temporary', lambda: sorted(os.listdir('.')))
"#,
    );
    checks.gives(
        "afterwards here",
        "$RUN sh -c 'for i in 1 2 3; do echo $i >f.tmp; mv f.tmp f; done'; cat f; ls",
        "3\nf\n",
    );
    checks.finish();
}
