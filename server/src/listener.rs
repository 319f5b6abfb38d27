//! One port: HTTP/1.1 and HTTP/2 in clear text, gRPC among it.

use axum::{Router, extract::ConnectInfo};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, watch},
};
use tower::{Layer, ServiceExt, layer::util::Identity};

/// Connections at a time. Every agent and every scheduler holds one or two.
const MAX_CONNECTIONS: usize = 200_000;
/// Connections that may wait to be accepted; the kernel may allow fewer. All agents come at
/// once after a master's restart, and those beyond it are reset.
const BACKLOG: u32 = 16_384;
/// A client has this long to begin, and then this long to send its headers.
const HEADER_PATIENCE: Duration = Duration::from_secs(30);
/// How every connection of HTTP/2 begins.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Between two looks at a connection that has begun with a part of [`PREFACE`] only.
const PREFACE_PAUSE: Duration = Duration::from_millis(20);
/// Bytes of headers taken.
const MAX_HEADERS: usize = 64 << 10;
/// Windows of HTTP/2: a stream must be able to carry the offers of a large cluster.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// A client that is sent something and takes none of it for this long is cut off: what
/// waits for it costs memory, and its end is what frees the rest.
const READ_PATIENCE: Duration = Duration::from_secs(60);
/// How long open requests may take to finish at shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// A listening socket that is not served yet.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

/// Stops a served listener.
#[derive(Debug, Clone)]
pub struct Stop {
    sender: Arc<watch::Sender<bool>>,
}

impl Stop {
    /// A signal that nobody waits for yet.
    pub fn new() -> Stop {
        Stop {
            sender: Arc::new(watch::channel(false).0),
        }
    }

    /// Tells everybody to stop.
    pub fn stop(&self) {
        self.sender.send_replace(true);
    }

    /// Waits until told to stop.
    pub async fn stopped(&self) {
        // The sender lives as long as this.
        let _ = self.sender.subscribe().wait_for(|it| *it).await;
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

impl Listener {
    /// Binds the address; port 0 takes a free one.
    ///
    /// # Errors
    /// The address is in use or not of this machine; the text says which address.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Listener> {
        let listener = listen(address).map_err(|error| {
            std::io::Error::new(
                error.kind(),
                format!("{address} cannot be listened on: {error}"),
            )
        })?;
        let address = listener.local_addr()?;
        Ok(Listener { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until told to stop; open requests get a moment to finish.
    pub async fn serve(self, router: Router, stop: Stop) {
        self.serve_within(router, stop, HEADER_PATIENCE).await;
    }

    async fn serve_within(self, router: Router, stop: Stop, patience: Duration) {
        let graceful = GracefulShutdown::new();
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(patience)
            .max_buf_size(MAX_HEADERS)
            .half_close(false);
        builder
            .http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADERS as u32)
            .keep_alive_interval(Some(Duration::from_secs(20)))
            .keep_alive_timeout(Duration::from_secs(20));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.stopped() => break,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or a client that went away: others go on.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            let Ok(permit) = room.clone().try_acquire_owned() else {
                tracing::warn!(%peer, "too many connections: refused");
                continue;
            };
            // Latency of small frames matters more than their number.
            let _ = socket.set_nodelay(true);
            // A kernel without it leaves such clients to their own time-outs.
            let stalled = READ_PATIENCE.as_millis() as u32;
            let _ = rustix::net::sockopt::set_tcp_user_timeout(&socket, stalled);
            let service = Identity::new().layer(router.clone()).map_request(
                move |mut request: http::Request<hyper::body::Incoming>| {
                    request.extensions_mut().insert(ConnectInfo(peer));
                    request
                },
            );
            let (builder, watcher, stop) = (builder.clone(), graceful.watcher(), stop.clone());
            tokio::spawn(async move {
                let began = tokio::select! {
                    began = tokio::time::timeout(patience, begins(&socket)) => began,
                    () = stop.stopped() => return,
                };
                if !began.unwrap_or(false) {
                    tracing::debug!(%peer, "a connection said nothing");
                    return;
                }
                let connection = builder
                    .serve_connection_with_upgrades(
                        TokioIo::new(socket),
                        TowerToHyperService::new(service),
                    )
                    .into_owned();
                // What goes wrong on one connection is the client's to know.
                if let Err(error) = watcher.watch(connection).await {
                    tracing::debug!(%peer, error, "a connection ended");
                }
                drop(permit);
            });
        }
        drop(self.listener);
        // Streams never end by themselves: they are cut after the moment.
        let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A restart must not wait for connections of the last life to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Waits until the client has said enough to tell HTTP/1 from HTTP/2, which the library
/// would do without end; false when it says no more.
async fn begins(socket: &TcpStream) -> bool {
    let mut start = [0; PREFACE.len()];
    loop {
        match socket.peek(&mut start).await {
            Ok(0) | Err(_) => return false,
            Ok(length) if length == start.len() || !PREFACE.starts_with(&start[..length]) => {
                return true;
            }
            // What was peeked at is there still: the socket does not wait for more than that.
            Ok(_) => tokio::time::sleep(PREFACE_PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn served() -> (SocketAddr, Stop, tokio::task::JoinHandle<()>) {
        served_within(HEADER_PATIENCE).await
    }

    async fn served_within(patience: Duration) -> (SocketAddr, Stop, tokio::task::JoinHandle<()>) {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let (address, stop) = (listener.address(), Stop::new());
        let router = Router::new().route("/", get(async || "hello"));
        let task = tokio::spawn(listener.serve_within(router, stop.clone(), patience));
        (address, stop, task)
    }

    async fn exchange(address: SocketAddr, request: &[u8]) -> String {
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        // The server may answer and close before it has read everything.
        let _ = socket.write_all(request).await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn serves_and_stops() {
        let (address, stop, task) = served().await;
        let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        assert!(exchange(address, request).await.ends_with("hello"));
        stop.stop();
        task.await.unwrap();
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn oversized_headers_are_refused_and_others_served() {
        let (address, stop, _task) = served().await;
        let mut request = b"GET / HTTP/1.1\r\nHost: x\r\nX: ".to_vec();
        request.extend(std::iter::repeat_n(b'a', 200_000));
        request.extend_from_slice(b"\r\n\r\n");
        assert!(
            exchange(address, &request)
                .await
                .starts_with("HTTP/1.1 431")
        );
        let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        assert!(exchange(address, request).await.ends_with("hello"));
        stop.stop();
    }

    #[tokio::test]
    async fn connections_that_say_too_little_are_closed() {
        let (address, stop, _task) = served_within(Duration::from_millis(50)).await;
        for beginning in ["", "P", "PRI * HTTP/2.0\r\n", "GET / HT"] {
            let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
            socket.write_all(beginning.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer).await;
            assert!(answer.is_empty(), "{beginning:?}: {answer:?}");
        }
        stop.stop();
    }
}
