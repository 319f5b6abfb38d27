//! One plain request to a master: what a benchmark has to ask beside its workload.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{collections::BTreeMap, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The status and the body of the answer.
pub(crate) async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("{address} broke off its answer to {path}"))?;
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
    let status = status.with_context(|| format!("{address} answered {path} by {head:?}"))?;
    Ok((status, body.to_owned()))
}

/// Everything that a master counts, by name.
pub(crate) async fn metrics(address: SocketAddr) -> Result<BTreeMap<String, f64>> {
    let (status, body) = request(address, "GET", "/metrics/snapshot", "").await?;
    if status != 200 {
        bail!("{address} answered {status} to /metrics/snapshot: {body}");
    }
    Ok(serde_json::from_str(&body)?)
}

/// The term of the masters' log; a change of leader makes it rise.
pub(crate) async fn term(masters: &[SocketAddr]) -> Result<u64> {
    let mut newest = 0;
    for address in masters {
        let metrics = metrics(*address).await?;
        newest = newest.max(metrics.get("tepui/raft/term").copied().unwrap_or(0.0) as u64);
    }
    Ok(newest)
}

/// Whether the master at `address` leads or knows who does.
pub(crate) async fn knows_leader(address: SocketAddr) -> Result<bool> {
    Ok(request(address, "GET", "/redirect", "").await?.0 == 307)
}

/// Which of `masters` leads.
pub(crate) async fn leader(masters: &[SocketAddr]) -> Result<usize> {
    for (index, address) in masters.iter().enumerate() {
        if metrics(*address).await?.get("master/elected") == Some(&1.0) {
            return Ok(index);
        }
    }
    bail!("none of the masters leads")
}

/// Hands leadership over to any other master; returns when it is done.
pub(crate) async fn transfer(leader: SocketAddr) -> Result<Value> {
    let path = "/tepui/v1/masters/transfer";
    let (status, body) = request(leader, "POST", path, "{}").await?;
    if status != 200 {
        bail!("the leader answered {status} to a transfer: {body}");
    }
    Ok(serde_json::from_str(&body)?)
}
