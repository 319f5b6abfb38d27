//! What the machine itself can do: the denominators of the ratios.

use anyhow::Result;
use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

/// Median time of an append of `bytes` with `fdatasync`, over `rounds`.
pub(crate) fn synced_append(folder: &Path, bytes: usize, rounds: usize) -> Result<Duration> {
    append(&folder.join("floor"), bytes, rounds).map(median)
}

/// The time of each append of `bytes` with `fdatasync` to a new file.
fn append(file: &Path, bytes: usize, rounds: usize) -> Result<Vec<Duration>> {
    let mut file = File::create(file)?;
    let data = vec![7; bytes];
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let started = Instant::now();
        file.write_all(&data)?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    Ok(times)
}

/// Median time of an append of `bytes` with `fdatasync` while so many files of one disk are written
/// in the same way, over `rounds`.
pub(crate) fn concurrent_appends(
    folder: &Path,
    bytes: usize,
    rounds: usize,
    files: usize,
) -> Result<Duration> {
    let all = std::thread::scope(|scope| {
        let begin = |index: usize| {
            scope.spawn(move || append(&folder.join(format!("floor-{index}")), bytes, rounds))
        };
        let threads: Vec<_> = (0..files).map(begin).collect();
        let join = |it: std::thread::ScopedJoinHandle<'_, Result<Vec<Duration>>>| {
            it.join()
                .map_err(|_| anyhow::anyhow!("a thread that appends panicked"))?
        };
        threads.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    Ok(median(all.concat()))
}

/// Median round trip of one byte over loopback TCP.
pub(crate) fn round_trip(rounds: usize) -> Result<Duration> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let echo = std::thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut byte = [0];
        for _ in 0..rounds {
            stream.read_exact(&mut byte)?;
            stream.write_all(&byte)?;
        }
        Ok(())
    });
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut byte = [1];
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let started = Instant::now();
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        times.push(started.elapsed());
    }
    echo.join()
        .map_err(|_| anyhow::anyhow!("the echo thread panicked"))??;
    Ok(median(times))
}

/// The middle of the sorted times; zero of none.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
