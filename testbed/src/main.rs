//! Starts a host by hand and waits: `cargo run -p testbed -- host --rtt 20`. For trying things out; tests use the library.

use std::io::Read;
use std::process::ExitCode;

use testbed::host::Fuse;
use testbed::{Client, Home, HostOptions, Lan, Pair, Wire};

const USAGE: &str = "usage: testbed prepare              make the base root and build the executables
       testbed host [OPTION...]     start a host, say how to reach it, wait for the end of stdin or a signal
options: --rtt MS  --rate BYTES_PER_S  --shell PATH  --sudo  --noise BYTES  --busybox
         --lan (a network behind it, see lan.rs)
         --bare (a client without the executables under test)
         --home usable|read-only|noexec|ROOM_IN_BYTES  --fuse usable|forbidden|missing  --no-userns  --sshd Name=value";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("prepare") => {
            testbed::image::Image::get();
            println!("{}", testbed::executable::Executables::build().display());
            ExitCode::SUCCESS
        }
        Some("host") => match parse(arguments) {
            Ok(Asked { options, wire, bare, lan }) => {
                let client = if bare { Client::start_bare() } else { Client::start() };
                let pair = Pair::of(client, options, wire);
                let _lan = lan.then(|| Lan::behind(&pair.host));
                wait_on(&pair);
                ExitCode::SUCCESS
            }
            Err(what) => refuse(&what),
        },
        _ => refuse("what to do?"),
    }
}

fn refuse(what: &str) -> ExitCode {
    eprintln!("testbed: {what}\n{USAGE}");
    ExitCode::from(2)
}

struct Asked {
    options: HostOptions,
    wire: Wire,
    bare: bool,
    lan: bool,
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
    let (mut options, mut wire, mut bare, mut lan) = (HostOptions::default(), Wire::default(), false, false);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|e| format!("{name} {text}: {e}"));
        match name.as_str() {
            "--rtt" => wire.delay = Wire::rtt(number(value()?)?).delay,
            "--rate" => wire.rate = number(value()?)?,
            "--shell" => options.login_shell = value()?,
            "--bare" => bare = true,
            "--lan" => lan = true,
            "--sudo" => options.sudo = true,
            "--noise" => options.noise = usize::try_from(number(value()?)?).map_err(|e| e.to_string())?,
            "--busybox" => options.busybox = true,
            "--no-userns" => options.user_namespaces = false,
            "--sshd" => options.sshd.push(value()?),
            "--home" => {
                options.home = match value()?.as_str() {
                    "usable" => Home::Usable,
                    "read-only" => Home::ReadOnly,
                    "noexec" => Home::Noexec,
                    room => Home::Room(number(room.to_owned())?),
                }
            }
            "--fuse" => {
                options.fuse = match value()?.as_str() {
                    "usable" => Fuse::Usable,
                    "forbidden" => Fuse::Forbidden,
                    "missing" => Fuse::Missing,
                    other => return Err(format!("--fuse {other}?")),
                }
            }
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok(Asked { options, wire, bare, lan })
}

fn wait_on(Pair { host, relay, client }: &Pair) {
    let enter = format!("nsenter --mount=/proc/{}/fd/{}", std::process::id(), client.namespace_fd());
    let user = format!("setpriv --reuid {0} --regid {0} --clear-groups", client.uid());
    let environment = format!(
        "env -i TERM=\"$TERM\" HOME={} USER=dev LOGNAME=dev SHELL=/bin/bash LANG=C.UTF-8 PATH={}:/usr/local/bin:/usr/bin:/bin",
        client.home().display(),
        client.programs().display()
    );
    println!("host {} at {}, behind a relay at {}", host.options().name, host.address(), relay.address());
    println!("its root: {}", host.root().display());
    println!(
        "ssh as root: ssh -F {} -i {} root@far",
        client.ssh_config().display(),
        testbed::image::Image::get().key().display()
    );
    println!("a shell of the client, in which `ssh far` and `remotely dev@far -- COMMAND` work:");
    println!("  {enter} {user} {environment} bash -c 'cd; exec bash -i'");
    println!("a shell on the host: nsenter --target {} --all --root --wd=/ bash", host.init());
    println!("ends with the end of stdin (Ctrl-D), or when killed");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
