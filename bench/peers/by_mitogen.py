# The words of bench/caller, for mitogen. Put behind a line that says where its modules are, and started by the bench.
import os, sys, time
from concurrent.futures import ThreadPoolExecutor
import mitogen.core, mitogen.fork, mitogen.master, mitogen.select, mitogen.service, mitogen.ssh, mitogen.sudo


def main(word, target, *rest):
    router = mitogen.master.Router(mitogen.master.Broker())

    def context(target):
        user, host = target.removesuffix('+sudo').split('@')
        near = router.ssh(hostname=host, username=user, python_path='python3', check_host_keys='ignore')
        return router.sudo(via=near, username='root', python_path='python3') if target.endswith('+sudo') else near

    began = time.perf_counter()
    if word == 'first':
        context(target).call(os.getpid)
        print(time.perf_counter() - began, flush=True)
    elif word == 'rate':
        far, calls = context(target), 0
        far.call(os.getpid)
        began = time.perf_counter()
        while time.perf_counter() - began < float(rest[0]):
            far.call(os.getpid)
            calls += 1
        print(calls / (time.perf_counter() - began), flush=True)
    elif word == 'pipelined':
        far, calls = context(target), 0
        far.call(os.getpid)
        began = time.perf_counter()
        while time.perf_counter() - began < float(rest[0]):
            for receiver in [far.call_async(os.getpid) for _ in range(5000)]:
                receiver.get().unpickle()
                calls += 1
        print(calls / (time.perf_counter() - began), flush=True)
    elif word == 'idle':
        context(target).call(os.getpid)
        print(0, flush=True)
        sys.stdin.read(1)
    elif word == 'fanout':
        hosts = [f'{target}{n}' for n in range(1, int(rest[0]) + 1)]
        with ThreadPoolExecutor(64) as pool:
            contexts = list(pool.map(context, hosts))
        for _ in mitogen.select.Select(far.call_async(os.getpid) for far in contexts):
            pass
        first = time.perf_counter() - began
        for _ in mitogen.select.Select(far.call_async(os.getpid) for far in contexts):
            pass
        print(first, time.perf_counter() - began - first, flush=True)
        sys.stdin.read(1)
    # Its way of ending waits for every host.
    os._exit(0)


if __name__ == '__main__':
    main(*sys.argv[1:])
