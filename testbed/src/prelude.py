# In front of every python script of the tests: `t` prints what comes of a call, or the name of its errno.
import ctypes, errno, fcntl, mmap, os, socket, stat, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *args):
    if getattr(libc, name)(*args) < 0:
        raise OSError(ctypes.get_errno(), name)
def t(name, f):
    try: r = f()
    except OSError as e: r = errno.errorcode[e.errno]
    print(name, r, flush=True)
def put(path, data, flags=os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode=0o644):
    fd = os.open(path, flags, mode)
    n = os.write(fd, data)
    os.close(fd)
    return n
def get(path):
    with open(path, 'rb') as f: return f.read()
def mode(path): return oct(os.lstat(path).st_mode)
AT = -100
