//! What the bench measures of the library: a program as its users write them, built as they build it. Started by the bench as
//! `by-remotely`; the scripts in `bench/peers` take the same words. Prints seconds, or calls per second, on one line.

use std::error::Error;
use std::io::Read;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use remotely::{Group, Remote, Tunnel, remote};

/// Calls under way at once, of those that do not wait for each other.
const UNDER_WAY: usize = 16 << 10;

#[remote]
fn nothing() {}

#[remote]
async fn nothing_async() {}

#[remotely::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let (mut all, mut cause) = (vec![error.to_string()], error.source());
            while let Some(error) = cause {
                all.push(error.to_string());
                cause = error.source();
            }
            // The last line is what the table shows.
            eprintln!("{}", all.join(": ").lines().take(2).collect::<Vec<_>>().join(" "));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["first", target] => {
            Tunnel::to(target)?.call(nothing, ()).await?;
            println!("{}", began.elapsed().as_secs_f64());
        }
        ["rate", target, seconds] => rate(nothing, target, seconds).await?,
        ["rate-async", target, seconds] => rate(nothing_async, target, seconds).await?,
        ["pipelined", target, seconds] => pipelined(nothing, target, seconds).await?,
        ["pipelined-async", target, seconds] => pipelined(nothing_async, target, seconds).await?,
        ["idle", target] => {
            let tunnel = Tunnel::to(target)?;
            tunnel.call(nothing, ()).await?;
            println!("0");
            until_told();
        }
        ["fanout", prefix, hosts] => {
            let group = Group::to((1..=hosts.parse()?).map(|n: usize| format!("{prefix}{n}")))?;
            group.call(nothing, ()).await.raise_failures()?;
            let first = began.elapsed();
            group.call(nothing, ()).await.raise_failures()?;
            println!("{} {}", first.as_secs_f64(), (began.elapsed() - first).as_secs_f64());
            until_told();
        }
        ["put", target, from, to] => {
            Tunnel::to(target)?.put(from, to).await?;
            println!("{}", began.elapsed().as_secs_f64());
        }
        ["fetch", target, from, to] => {
            Tunnel::to(target)?.fetch(from, to).await?;
            println!("{}", began.elapsed().as_secs_f64());
        }
        _ => return Err("what?".into()),
    }
    Ok(())
}

/// Calls one after the other.
async fn rate<F: Remote<Args = ()>>(function: F, target: &str, seconds: &str) -> Result<(), Box<dyn Error>> {
    let tunnel = Tunnel::to(target)?;
    tunnel.call(function, ()).await?;
    let (began, limit, mut calls) = (Instant::now(), Duration::from_secs_f64(seconds.parse()?), 0_u32);
    while began.elapsed() < limit {
        tunnel.call(function, ()).await?;
        calls += 1;
    }
    println!("{}", f64::from(calls) / began.elapsed().as_secs_f64());
    Ok(())
}

/// Calls that do not wait for each other.
async fn pipelined<F: Remote<Args = ()>>(function: F, target: &str, seconds: &str) -> Result<(), Box<dyn Error>> {
    let tunnel = Tunnel::to(target)?;
    tunnel.call(function, ()).await?;
    let (began, limit, mut calls) = (Instant::now(), Duration::from_secs_f64(seconds.parse()?), 0_u32);
    let mut under_way: FuturesUnordered<_> = (0..UNDER_WAY).map(|_| tunnel.call(function, ())).collect();
    let mut more = true;
    while let Some(done) = under_way.next().await {
        done?;
        calls += 1;
        more = more && (calls % 64 != 0 || began.elapsed() < limit);
        if more {
            under_way.push(tunnel.call(function, ()));
        }
    }
    println!("{}", f64::from(calls) / began.elapsed().as_secs_f64());
    Ok(())
}

/// Keeps everything as it is while the bench looks at it.
fn until_told() {
    let _ = std::io::stdin().read(&mut [0]);
}
