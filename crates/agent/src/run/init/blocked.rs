//! What /proc says of a thread that is blocked, and what it waits for: parsed from texts and from memory of processes that
//! are not trusted. Called by [`super::waiting`], which reads them; nothing here does I/O.

/// A character device, by its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Device {
    /// Major number.
    pub(super) major: u32,
    /// Minor number.
    pub(super) minor: u32,
}

/// /dev/tty: whatever the controlling terminal of a process is.
pub(super) const OWN_TERMINAL: Device = Device { major: 5, minor: 0 };

/// What matters of /proc/PID/stat, proc_pid_stat(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// It is in a sleep that signals interrupt.
    pub(super) sleeps: bool,
    /// Process group.
    pub(super) group: i32,
    /// Controlling terminal; 0, 0 if none.
    pub(super) terminal: Device,
    /// Process group in the foreground of that.
    pub(super) foreground: i32,
    /// How many threads the process has.
    pub(super) threads: u32,
}

impl Stat {
    /// Reads the text of the file.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        // The name of the program, in parentheses, may hold anything.
        let after_name = text.iter().rposition(|byte| *byte == b')')? + 1;
        let fields = std::str::from_utf8(&text[after_name..]).ok()?;
        let mut fields = fields.split_ascii_whitespace();
        let sleeps = fields.next()? == "S";
        let group = fields.nth(1)?.parse().ok()?;
        let number = fields.nth(1)?.parse::<i32>().ok()?.cast_unsigned();
        let foreground = fields.next()?.parse().ok()?;
        let threads = fields.nth(11)?.parse().ok()?;
        let terminal = Device { major: number >> 8 & 0xfff, minor: number & 0xff | number >> 12 & 0xf_ff00 };
        Some(Self { sleeps, group, terminal, foreground, threads })
    }
}

/// A system call that may be waiting for input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Reads this descriptor.
    Read {
        /// The descriptor.
        fd: u64,
    },
    /// poll(2).
    Poll {
        /// Address of the array of struct pollfd.
        entries: u64,
        /// How many there are.
        count: u64,
    },
    /// select(2).
    Select {
        /// Address of the set of descriptors to read from; 0 if there is none.
        set: u64,
        /// How many bits of it count.
        count: u64,
    },
    /// epoll_wait(2).
    Epoll {
        /// Descriptor of the epoll instance.
        fd: u64,
    },
}

impl Wait {
    /// Reads the text of /proc/PID/task/TID/syscall, proc_pid_syscall(5): number and arguments. `None` for every other call, and
    /// for a thread that is in none.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(text).ok()?.split_ascii_whitespace();
        let number = fields.next()?.parse().ok()?;
        let mut arguments = [0; 6];
        for argument in &mut arguments {
            *argument = u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok()?;
        }
        Self::of(number, &arguments)
    }

    fn of(number: libc::c_long, arguments: &[u64; 6]) -> Option<Self> {
        // Calls that newer architectures do without.
        #[cfg(target_arch = "x86_64")]
        match number {
            libc::SYS_poll => return Some(Self::Poll { entries: arguments[0], count: arguments[1] }),
            libc::SYS_select => return Some(Self::Select { set: arguments[1], count: arguments[0] }),
            libc::SYS_epoll_wait => return Some(Self::Epoll { fd: arguments[0] }),
            _ => {}
        }
        match number {
            libc::SYS_read
            | libc::SYS_readv
            | libc::SYS_pread64
            | libc::SYS_preadv
            | libc::SYS_preadv2
            | libc::SYS_splice => Some(Self::Read { fd: arguments[0] }),
            libc::SYS_sendfile => Some(Self::Read { fd: arguments[1] }),
            libc::SYS_ppoll => Some(Self::Poll { entries: arguments[0], count: arguments[1] }),
            libc::SYS_pselect6 => Some(Self::Select { set: arguments[1], count: arguments[0] }),
            libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => Some(Self::Epoll { fd: arguments[0] }),
            _ => None,
        }
    }
}

/// Bytes of one struct pollfd.
pub(super) const POLL_ENTRY: usize = 8;

/// Descriptors that an array of struct pollfd waits to read from.
pub(super) fn polled(array: &[u8]) -> impl Iterator<Item = u64> {
    array.as_chunks::<POLL_ENTRY>().0.iter().filter_map(|&[a, b, c, d, e, f, ..]| {
        let fd = i32::from_ne_bytes([a, b, c, d]);
        let wanted = i16::from_ne_bytes([e, f]) & (libc::POLLIN | libc::POLLRDNORM) != 0;
        u64::try_from(fd).ok().filter(|_| wanted)
    })
}

/// Members of an fd_set. Only those below `count`.
pub(super) fn selected(set: &[u8], count: u64) -> impl Iterator<Item = u64> {
    // Words of 64 bits, lowest bit first: on a little-endian machine, the only kind there is an agent for, bytes are the same.
    let set = set.iter().zip((0_u64..).step_by(8));
    let members =
        set.flat_map(|(&byte, first)| (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| first + bit));
    members.take_while(move |&fd| fd < count)
}

/// Descriptors that an epoll instance waits to read from, by the text of its /proc/PID/fdinfo/FD, proc_pid_fdinfo(5).
pub(super) fn registered(text: &[u8]) -> impl Iterator<Item = u64> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
        (words.next()? == "tfd:").then_some(())?;
        let fd = words.next()?.parse().ok()?;
        (words.next()? == "events:").then_some(())?;
        let events = u32::from_str_radix(words.next()?, 16).ok()?;
        let wanted = (libc::EPOLLIN | libc::EPOLLRDNORM).cast_unsigned();
        (events & wanted != 0).then_some(fd)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "17 (a) S 1 (b) R 1 17 1 34820 17 4194304 99 0 0 0 0 0 0 0 20 0 3 0 100 1 1";

    #[test]
    fn stat() {
        let parsed = Stat::parse(STAT.replace(" R ", " S ").as_bytes()).unwrap();
        let terminal = Device { major: 136, minor: 4 };
        assert_eq!(parsed, Stat { sleeps: true, group: 17, terminal, foreground: 17, threads: 3 });
        assert!(!Stat::parse(STAT.as_bytes()).unwrap().sleeps);
        // 34816 is 136:0; minor numbers above 255 have their upper bits above the major one.
        let of = |number: &str| Stat::parse(STAT.replace("34820", number).as_bytes()).map(|stat| stat.terminal);
        assert_eq!(of("1083396"), Some(Device { major: 136, minor: 0x104 }));
        assert_eq!(of("0"), Some(Device { major: 0, minor: 0 }));
        assert_eq!(of("-1").map(|device| device.major), Some(0xfff));
        for end in 0..STAT.len() - 14 {
            assert_eq!(Stat::parse(&STAT.as_bytes()[..end]), None, "{end}");
        }
        assert_eq!(Stat::parse(b"1 (\xff) S 1 \xff"), None);
    }

    #[test]
    fn the_stat_of_this_process() {
        let own = Stat::parse(&std::fs::read("/proc/self/stat").unwrap()).unwrap();
        // SAFETY: they take nothing.
        assert_eq!(own.group, unsafe { libc::getpgrp() });
        let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
        assert!(own.threads >= 1 && threads >= 1, "{own:?}");
    }

    #[test]
    fn calls() {
        let text = |number, arguments: &str| format!("{number} {arguments} 0x0 0x0 0x0 0x7ffe 0x7f00\n");
        let parsed = |number: libc::c_long, arguments| Wait::parse(text(number, arguments).as_bytes());
        assert_eq!(parsed(libc::SYS_read, "0x3 0x7f12 0x1000"), Some(Wait::Read { fd: 3 }));
        assert_eq!(parsed(libc::SYS_sendfile, "0x1 0x4 0x0"), Some(Wait::Read { fd: 4 }));
        assert_eq!(parsed(libc::SYS_ppoll, "0x7f12 0x2 0x0"), Some(Wait::Poll { entries: 0x7f12, count: 2 }));
        assert_eq!(parsed(libc::SYS_pselect6, "0x1 0x7f12 0x0"), Some(Wait::Select { set: 0x7f12, count: 1 }));
        assert_eq!(parsed(libc::SYS_epoll_pwait, "0x4 0x7f12 0x8"), Some(Wait::Epoll { fd: 4 }));
        assert_eq!(parsed(libc::SYS_write, "0x0 0x7f12 0x1000"), None);
        assert_eq!(parsed(libc::SYS_nanosleep, "0x0 0x0 0x0"), None);
        for text in [
            "running\n",
            "-1 0x7ffe 0x7f00\n",
            "",
            "0 0x0",
            "0 0 0 0 0 0 0",
            "0 0x1ffffffffffffffff 0x0 0x0 0x0 0x0 0x0",
        ] {
            assert_eq!(Wait::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn arrays_and_sets() {
        let entry = |fd: i32, events: i16| [&fd.to_ne_bytes()[..], &events.to_ne_bytes(), &[0, 0]].concat();
        let array = [entry(5, libc::POLLIN), entry(-1, libc::POLLIN), entry(6, libc::POLLOUT), entry(7, libc::POLLIN)];
        let mut array = array.concat();
        array.truncate(array.len() - 1);
        assert_eq!(polled(&array).collect::<Vec<_>>(), [5]);
        assert_eq!(selected(&[0b101, 0, 0x80], 64).collect::<Vec<_>>(), [0, 2, 23]);
        assert_eq!(selected(&[0b101, 0, 0x80], 23).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn registrations() {
        let text = b"pos:\t0\nflags:\t02\nmnt_id:\t15\n\
            tfd:        5 events:       1d data:                5  pos:0 ino:a sdev:f\n\
            tfd:        6 events:        4 data:                6  pos:0 ino:a sdev:f\n\
            tfd:        7 events: 80000000 data: 7\ntfd: x events: 1\ntfd: 8 events:\n\xff\ntfd: 9 events: 41";
        assert_eq!(registered(text).collect::<Vec<_>>(), [5, 9]);
    }
}
