//! Restarts a service on many hosts, a few at a time, and stops at the first one that does not come back.
//!
//! ```console
//! $ rolling-restart 10 'web[1-200]' 'systemctl restart nginx' 'curl -fsS localhost/health'
//! web1: healthy after 1.3 s
//! ```

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use remotely::{Group, Queue, here, remote};
use tokio::process::Command;

/// How long a host may take to be healthy again.
const HEALTHY_WITHIN: Duration = Duration::from_secs(30);

/// Runs a script on the host. What it prints comes here as lines with the host's name, by itself.
#[remote]
async fn run(script: String) -> Result<(), String> {
    let mut shell = Command::new("sh");
    // `here` knows where a function runs.
    let status = shell.args(["-c", &script]).env("HOST", here::host()).status().await;
    match status.map_err(|error| format!("sh: {error}"))? {
        status if status.success() => Ok(()),
        status => Err(format!("`{script}` ended with {status}")),
    }
}

/// Waits until a script succeeds. It is async, so giving up on it ends it at the next await.
#[remote]
async fn wait_for(script: String) {
    // Over there, this is the function itself.
    while run(script.clone()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[remotely::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [size, hosts, restart, check] = &words[..] else {
        return Err("usage: rolling-restart SIZE HOSTS RESTART CHECK".into());
    };
    let group = Group::named(hosts).await?;
    // First of all, whether all of them can be reached: nothing has been done yet.
    group.connect().await.raise_failures()?;

    for batch in group.tunnels().chunks(size.parse::<usize>()?.max(1)) {
        // Steps of one host are done one after the other, hosts beside each other.
        let queue = Queue::new();
        let steps = batch.iter().map(|host| {
            let (tunnel, restart, check) = (host.clone(), restart.clone(), check.clone());
            let step = async move {
                let began = Instant::now();
                tunnel.call(run, (restart,)).await?;
                tunnel.call(wait_for, (check,)).timeout(HEALTHY_WITHIN).await?;
                Ok(began.elapsed())
            };
            (host, queue.put(host, step))
        });
        let mut failed = 0;
        for (host, step) in steps.collect::<Vec<_>>() {
            match step.await {
                Ok(took) => println!("{}: healthy after {:.1} s", host.host(), took.as_secs_f64()),
                // It begins with the host's name.
                Err(error) => (failed, _) = (failed + 1, eprintln!("{error}")),
            }
        }
        if failed > 0 {
            eprintln!("{failed} of {} failed: the others are left as they are", batch.len());
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}
