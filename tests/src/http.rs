//! A small HTTP/1.1 client on a blocking socket, made for tests: it sends exactly the
//! headers it is given and shows chunk boundaries.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// How long any answer may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long a single answer may take; one that does not come counts as none.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, without transfer encoding.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("not JSON ({}): {:?}", self.status, self.text()))
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

/// The bytes of a request; Host and Content-Length are added.
pub fn request_bytes(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Sends one request on a connection of its own and reads the whole answer. `None` when
/// the server closes the connection without an answer.
///
/// # Errors
/// When the server cannot be reached or answers what is not HTTP.
pub fn exchange(address: SocketAddr, request: &[u8]) -> Result<Option<Response>> {
    let is_head = request.starts_with(b"HEAD ");
    let mut stream = connect(address)?;
    stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
    // A server may refuse and close before it has read everything.
    let _ = stream.write_all(request);
    let mut reader = BufReader::new(stream);
    let Some((status, headers)) = read_head(&mut reader)? else {
        return Ok(None);
    };
    let mut body = Vec::new();
    if is_head || status == 204 || status == 304 {
        // No body, whatever the headers say.
    } else if header(&headers, "transfer-encoding").is_some_and(|it| it.contains("chunked")) {
        while let Some(chunk) = read_chunk(&mut reader)? {
            body.extend_from_slice(&chunk);
        }
    } else if let Some(length) = header(&headers, "content-length") {
        body.resize(length.parse().context("content-length")?, 0);
        reader.read_exact(&mut body).context("the body")?;
    }
    Ok(Some(Response {
        status,
        headers,
        body,
    }))
}

/// [`exchange`] of a request made of parts.
///
/// # Errors
/// As [`exchange`], and when there is no answer.
pub fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Response> {
    exchange(address, &request_bytes(method, path, headers, body))?
        .with_context(|| format!("{method} {path}: closed without an answer"))
}

/// GET as JSON.
///
/// # Errors
/// When the answer is not 200 or not JSON.
pub fn get(address: SocketAddr, path: &str) -> Result<Value> {
    let response = send(address, "GET", path, &[], &[])?;
    if response.status != 200 {
        bail!(
            "GET {path} answered {}: {}",
            response.status,
            response.text()
        );
    }
    response.json()
}

/// POST of JSON.
///
/// # Errors
/// When there is no answer.
pub fn post(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Result<Response> {
    let mut all = vec![
        ("Content-Type", "application/json"),
        ("Accept", "application/json"),
    ];
    all.extend_from_slice(headers);
    send(address, "POST", path, &all, body.to_string().as_bytes())
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)
        .with_context(|| format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

type Head = (u16, Vec<(String, String)>);

fn read_head(reader: &mut impl BufRead) -> Result<Option<Head>> {
    loop {
        let mut line = String::new();
        // A reset is as good as a close here.
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return Ok(None);
        }
        let status: u16 = line
            .split_whitespace()
            .nth(1)
            .and_then(|it| it.parse().ok())
            .with_context(|| format!("not a status line: {line:?}"))?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line
                .split_once(':')
                .with_context(|| format!("not a header: {line:?}"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if status != 100 {
            return Ok(Some((status, headers)));
        }
    }
}

/// One chunk; `None` for the last, empty one or a closed connection.
fn read_chunk(reader: &mut impl BufRead) -> Result<Option<Vec<u8>>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let length = usize::from_str_radix(line.trim(), 16)
        .with_context(|| format!("not a chunk length: {line:?}"))?;
    let mut chunk = vec![0; length + 2];
    reader.read_exact(&mut chunk)?;
    chunk.truncate(length);
    Ok((length > 0).then_some(chunk))
}

/// An open streaming answer.
#[derive(Debug)]
pub struct Stream {
    /// Status code.
    pub status: u16,
    /// Header names in lower case.
    pub headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
}

impl Stream {
    /// Sends a request and reads the head of its answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn open(address: SocketAddr, request: &[u8]) -> Result<Stream> {
        let mut stream = connect(address)?;
        stream.write_all(request)?;
        let mut reader = BufReader::new(stream);
        let (status, headers) = read_head(&mut reader)?.context("closed without an answer")?;
        Ok(Stream {
            status,
            headers,
            reader,
        })
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The next chunk, which must be exactly one record; `None` at the end.
    ///
    /// # Errors
    /// When nothing comes within [`PATIENCE`], or a chunk is not one whole record.
    pub fn record(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(chunk) = read_chunk(&mut self.reader).context("the next record")? else {
            return Ok(None);
        };
        let newline = chunk
            .iter()
            .position(|byte| *byte == b'\n')
            .context("a record starts with its length")?;
        let length: usize = std::str::from_utf8(&chunk[..newline])?.parse()?;
        let record = &chunk[newline + 1..];
        if record.len() != length {
            bail!(
                "a chunk holds {} bytes of a record of {length}",
                record.len()
            );
        }
        Ok(Some(record.to_vec()))
    }

    /// How long [`Stream::record`] waits.
    ///
    /// # Errors
    /// When the socket refuses.
    pub fn set_patience(&self, patience: Duration) -> Result<()> {
        Ok(self.reader.get_ref().set_read_timeout(Some(patience))?)
    }
}
