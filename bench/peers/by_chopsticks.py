# The words of bench/caller, for chopsticks. Put behind a line that says where its modules are, and started by the bench.
import os, sys, time
from chopsticks.group import Group
from chopsticks.queue import Queue
from chopsticks.tunnel import SSHTunnel


def tunnel(target):
    sudo = target.endswith('+sudo')
    user, host = target.removesuffix('+sudo').split('@')
    return SSHTunnel(host, user=user, sudo=sudo)


def main(word, target, *rest):
    began = time.perf_counter()
    if word == 'first':
        tunnel(target).call(os.getpid)
        print(time.perf_counter() - began, flush=True)
    elif word == 'rate':
        far, calls = tunnel(target), 0
        far.call(os.getpid)
        began = time.perf_counter()
        while time.perf_counter() - began < float(rest[0]):
            far.call(os.getpid)
            calls += 1
        print(calls / (time.perf_counter() - began), flush=True)
    elif word == 'pipelined':
        far, calls = tunnel(target), 0
        far.call(os.getpid)
        began = time.perf_counter()
        while time.perf_counter() - began < float(rest[0]):
            queue = Queue()
            for _ in range(20):
                queue.call(far, os.getpid)
            queue.run()
            calls += 20
        print(calls / (time.perf_counter() - began), flush=True)
    elif word == 'idle':
        far = tunnel(target)
        far.call(os.getpid)
        print(0, flush=True)
        sys.stdin.read(1)
    elif word == 'fanout':
        user, prefix = target.split('@')
        group = Group([SSHTunnel(f'{prefix}{n}', user=user) for n in range(1, int(rest[0]) + 1)])
        group.call(os.getpid).raise_failures()
        first = time.perf_counter() - began
        group.call(os.getpid).raise_failures()
        print(first, time.perf_counter() - began - first, flush=True)
        sys.stdin.read(1)
    elif word == 'put':
        far = tunnel(target)
        if os.path.isdir(rest[0]):
            far.call(os.makedirs, rest[1], exist_ok=True)
            for name in os.listdir(rest[0]):
                far.put(os.path.join(rest[0], name), os.path.join(rest[1], name))
        else:
            far.put(rest[0], rest[1])
        print(time.perf_counter() - began, flush=True)
    elif word == 'fetch':
        tunnel(target).fetch(rest[0], rest[1])
        print(time.perf_counter() - began, flush=True)
    # Its way of ending takes seconds.
    os._exit(0)


if __name__ == '__main__':
    main(*sys.argv[1:])
