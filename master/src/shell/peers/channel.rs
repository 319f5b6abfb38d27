//! Connections between masters, and the proof that both ends may have one.
//!
//! Beneath gRPC: whoever does not know the cluster's key, or has no certificate of its
//! authority, does not get to say a word of the protocol. With a key, both ends prove that
//! they know it over fresh random numbers; what follows is in clear text, so a key keeps
//! strangers and other clusters away, and TLS is for networks that others can write to.

use super::PATIENCE;
use anyhow::{Context as _, Result, bail, ensure};
use hyper_util::rt::TokioIo;
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use std::{
    fmt, io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tepui_server::listener::Stop;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};
use tonic::transport::{Channel, Endpoint, server::Connected};

/// How a connection with a key begins.
const GREETING: &[u8; 8] = b"TEPUIKEY";
/// Bytes of random numbers and of proofs.
const NONCE: usize = 32;
/// Sent by a server that does not accept the proof, before it closes.
const REFUSED: &[u8; 8] = b"WRONGKEY";
const ACCEPTED: &[u8; 8] = b"WELCOME!";
/// Connections that have not proved anything yet; a cluster has a few masters.
const STRANGERS: usize = 64;
/// A peer that takes nothing for this long is cut off: a connection that lived through a partition
/// waits for its next retransmission, which may be seconds after the end; a new one does not.
const STALLED: Duration = Duration::from_secs(2);
/// A connection takes a round trip or two; one whose first packets were lost is better begun anew.
const DIAL: Duration = Duration::from_millis(1500);

/// Who may connect.
#[derive(Clone)]
pub(crate) enum Security {
    /// Everybody who reaches the port.
    Open,
    /// Who knows the key.
    Key(Arc<hmac::Key>),
    /// Who has a certificate of the authority.
    Tls {
        server: Arc<ServerConfig>,
        client: Arc<ClientConfig>,
    },
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Security::Open => "Open",
            Security::Key(_) => "Key",
            Security::Tls { .. } => "Tls",
        })
    }
}

/// Bytes both ways.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection that has proved what it must.
pub(crate) struct Connection(Box<dyn Io>);

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl Security {
    /// The key in a file: its content without white space at the ends.
    ///
    /// # Errors
    /// It cannot be read, or is too short to be a secret.
    pub(crate) fn key(path: &Path) -> Result<Security> {
        let text = std::fs::read(path)
            .with_context(|| format!("--cluster_key_file: {} cannot be read", path.display()))?;
        let key = text.trim_ascii();
        ensure!(
            key.len() >= 16,
            "--cluster_key_file: the key in {} is shorter than 16 bytes; \
             `openssl rand -hex 32` makes one",
            path.display()
        );
        Ok(Security::Key(Arc::new(hmac::Key::new(
            hmac::HMAC_SHA256,
            key,
        ))))
    }

    /// Certificate, key and authority in PEM files; both ends show theirs.
    ///
    /// # Errors
    /// The file that cannot be used.
    pub(crate) fn tls(certificate: &Path, key: &Path, authority: &Path) -> Result<Security> {
        let chain = |flag: &str, path: &Path| -> Result<Vec<CertificateDer<'static>>> {
            let read = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|it| anyhow::anyhow!("--{flag}: {}: {it}", path.display()))?;
            ensure!(
                !read.is_empty(),
                "--{flag}: {} has no certificate",
                path.display()
            );
            Ok(read)
        };
        let own = chain("peer_tls_cert_file", certificate)?;
        let own_key = PrivateKeyDer::from_pem_file(key)
            .map_err(|it| anyhow::anyhow!("--peer_tls_key_file: {}: {it}", key.display()))?;
        let mut roots = RootCertStore::empty();
        for root in chain("peer_tls_ca_file", authority)? {
            roots
                .add(root)
                .context("--peer_tls_ca_file: a certificate cannot be used")?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(own.clone(), own_key.clone_key())
            .context("--peer_tls_key_file: not the key of the certificate")?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(own, own_key)?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Security::Tls {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }

    /// Whether anybody who reaches the port may connect.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Security::Open)
    }

    /// A connection to the master at `address`, for one purpose: what one stream waits for does
    /// not hold up another.
    ///
    /// # Errors
    /// It cannot be reached, or one end does not accept the other.
    pub(crate) async fn connect(&self, address: &str) -> Result<Channel> {
        let (security, to) = (self.clone(), address.to_owned());
        let connector = tower::service_fn(move |_| {
            let (security, to) = (security.clone(), to.clone());
            async move {
                let connected = tokio::time::timeout(DIAL, security.dial(&to)).await;
                match connected {
                    Ok(Ok(connection)) => Ok(TokioIo::new(connection)),
                    Ok(Err(error)) => Err(io::Error::other(format!("{error:#}"))),
                    Err(_) => Err(io::Error::other("it does not answer")),
                }
            }
        });
        // The scheme is not looked at: the connection is made above.
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .with_context(|| format!("{address:?} is not of the form host:port"))?
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(5));
        let connected = endpoint.connect_with_connector(connector).await;
        connected.map_err(|error| {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(next) = cause.source() {
                cause = next;
            }
            anyhow::anyhow!("master {address} cannot be reached: {cause}")
        })
    }

    async fn dial(&self, address: &str) -> Result<Connection> {
        let mut socket = TcpStream::connect(address).await?;
        prepare(&socket);
        match self {
            Security::Open => Ok(Connection(Box::new(socket))),
            Security::Key(key) => {
                prove(&mut socket, key).await?;
                Ok(Connection(Box::new(socket)))
            }
            Security::Tls { client, .. } => {
                let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
                let host = host.trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(host).context("no name for a certificate")?;
                let stream = TlsConnector::from(client.clone())
                    .connect(name, socket)
                    .await
                    .context("its certificate was not accepted, or ours was not")?;
                Ok(Connection(Box::new(stream)))
            }
        }
    }

    async fn welcome(&self, mut socket: TcpStream) -> Result<Connection> {
        prepare(&socket);
        match self {
            Security::Open => Ok(Connection(Box::new(socket))),
            Security::Key(key) => {
                demand(&mut socket, key).await?;
                Ok(Connection(Box::new(socket)))
            }
            Security::Tls { server, .. } => {
                let stream = TlsAcceptor::from(server.clone()).accept(socket).await?;
                Ok(Connection(Box::new(stream)))
            }
        }
    }

    /// Accepts connections until told to stop; those that prove what they must come out.
    pub(crate) fn accept(
        &self,
        listener: TcpListener,
        stop: Stop,
    ) -> mpsc::Receiver<io::Result<Connection>> {
        // Each waits for nobody but the server's loop.
        let (accepted, connections) = mpsc::channel(16);
        let security = self.clone();
        tokio::spawn(async move {
            let room = Arc::new(Semaphore::new(STRANGERS));
            loop {
                let next = tokio::select! {
                    next = listener.accept() => next,
                    () = stop.stopped() => return,
                };
                let (socket, peer) = match next {
                    Ok(next) => next,
                    Err(error) => {
                        tracing::warn!(%error, "a master's connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    }
                };
                let Ok(permit) = room.clone().try_acquire_owned() else {
                    tracing::warn!(%peer, "too many connections to the masters' port: refused");
                    continue;
                };
                let (security, accepted) = (security.clone(), accepted.clone());
                tokio::spawn(async move {
                    match tokio::time::timeout(PATIENCE, security.welcome(socket)).await {
                        // Nobody takes it when the server has stopped.
                        Ok(Ok(connection)) => drop(accepted.send(Ok(connection)).await),
                        Ok(Err(error)) => {
                            let error = format!("{error:#}");
                            tracing::warn!(%peer, error, "a connection to the masters' port is refused");
                        }
                        Err(_) => {
                            tracing::warn!(%peer, "a connection to the masters' port said nothing")
                        }
                    }
                    drop(permit);
                });
            }
        });
        connections
    }
}

fn prepare(socket: &TcpStream) {
    // A kernel without these is slower to notice, no more.
    let _ = socket.set_nodelay(true);
    let stalled = STALLED.as_millis() as u32;
    let _ = rustix::net::sockopt::set_tcp_user_timeout(socket, stalled);
}

fn proof(key: &hmac::Key, who: &[u8], client: &[u8], server: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in [b"tepui masters 1 ".as_slice(), who, client, server] {
        context.update(part);
    }
    context.sign()
}

fn is_proof(key: &hmac::Key, who: &[u8], client: &[u8], server: &[u8], tag: &[u8]) -> bool {
    let mut message = b"tepui masters 1 ".to_vec();
    for part in [who, client, server] {
        message.extend_from_slice(part);
    }
    // In constant time.
    hmac::verify(key, &message, tag).is_ok()
}

fn nonce() -> Result<[u8; NONCE]> {
    let mut bytes = [0; NONCE];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| anyhow::anyhow!("the system has no random numbers"))?;
    Ok(bytes)
}

/// The client's part: proves that it knows the key, and that the server does.
async fn prove(socket: &mut TcpStream, key: &hmac::Key) -> Result<()> {
    let silent = "it does not ask for the cluster's key: does it have --cluster_key_file?";
    let own = nonce()?;
    socket.write_all(GREETING).await?;
    socket.write_all(&own).await?;
    let mut answer = [0; 2 * NONCE];
    socket.read_exact(&mut answer).await.context(silent)?;
    let (theirs, tag) = answer.split_at(NONCE);
    let server_knows = is_proof(key, b"server", &own, theirs, tag);
    socket
        .write_all(proof(key, b"client", &own, theirs).as_ref())
        .await?;
    let mut end = [0; ACCEPTED.len()];
    let ended = socket.read_exact(&mut end).await;
    if !server_knows || ended.is_err() || &end != ACCEPTED {
        bail!("its cluster key is another one: is it a master of this cluster?");
    }
    Ok(())
}

/// The server's part.
async fn demand(socket: &mut TcpStream, key: &hmac::Key) -> Result<()> {
    let mut begin = [0; GREETING.len() + NONCE];
    socket.read_exact(&mut begin).await?;
    let (greeting, theirs) = begin.split_at(GREETING.len());
    ensure!(
        greeting == GREETING,
        "it did not offer a cluster key; every master needs the same --cluster_key_file"
    );
    let own = nonce()?;
    let mut answer = own.to_vec();
    answer.extend_from_slice(proof(key, b"server", theirs, &own).as_ref());
    socket.write_all(&answer).await?;
    let mut tag = [0; NONCE];
    socket.read_exact(&mut tag).await?;
    if !is_proof(key, b"client", theirs, &own, &tag) {
        let _ = socket.write_all(REFUSED).await;
        bail!("its cluster key is another one");
    }
    socket.write_all(ACCEPTED).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed(text: &str) -> Security {
        Security::Key(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes())))
    }

    /// Whether each end accepts the other.
    async fn meet(client: Security, server: Security) -> (Result<(), String>, bool) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let welcome = async {
            let (socket, _) = listener.accept().await.unwrap();
            server.welcome(socket).await.is_ok()
        };
        let dial = async {
            let dialled = client.dial(&address).await;
            dialled.map(|_| ()).map_err(|error| format!("{error:#}"))
        };
        tokio::join!(dial, welcome)
    }

    #[tokio::test]
    async fn the_same_key_opens() {
        let (client, server) =
            meet(keyed("one and the same key"), keyed("one and the same key")).await;
        assert!(server && client.is_ok(), "{client:?}");
    }

    #[tokio::test]
    async fn another_key_is_told() {
        let (client, server) = meet(keyed("the first cluster"), keyed("the second cluster")).await;
        assert!(!server);
        assert!(client.unwrap_err().contains("another one"));
    }

    #[tokio::test]
    async fn a_client_without_a_key_says_nothing_of_use() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        client
            .write_all(&[b'P'; GREETING.len() + NONCE])
            .await
            .unwrap();
        let error = keyed("some key or other")
            .welcome(socket)
            .await
            .err()
            .unwrap();
        assert!(error.to_string().contains("--cluster_key_file"), "{error}");
    }

    /// A certificate for loopback with its key and its authority, as files.
    struct Certificates {
        folder: tempfile::TempDir,
    }

    impl Certificates {
        fn new() -> Certificates {
            use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
            let folder = tempfile::tempdir().unwrap();
            let authority_key = KeyPair::generate().unwrap();
            let mut authority = CertificateParams::new(Vec::new()).unwrap();
            authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let root = authority.self_signed(&authority_key).unwrap();
            let issuer = Issuer::new(authority, authority_key);
            let key = KeyPair::generate().unwrap();
            let own = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            let own = own.signed_by(&key, &issuer).unwrap();
            for (name, text) in [
                ("ca", root.pem()),
                ("cert", own.pem()),
                ("key", key.serialize_pem()),
            ] {
                std::fs::write(folder.path().join(name), text).unwrap();
            }
            Certificates { folder }
        }

        fn security(&self) -> Security {
            let file = |name: &str| self.folder.path().join(name);
            Security::tls(&file("cert"), &file("key"), &file("ca")).unwrap()
        }
    }

    #[tokio::test]
    async fn certificates_of_the_same_authority_open_and_others_do_not() {
        let (own, other) = (Certificates::new(), Certificates::new());
        let (client, server) = meet(own.security(), own.security()).await;
        assert!(server && client.is_ok(), "{client:?}");
        let (client, server) = meet(other.security(), own.security()).await;
        assert!(!server && client.is_err());
        let (_, server) = meet(keyed("a key is no certificate"), own.security()).await;
        assert!(!server);
    }

    #[test]
    fn files_of_certificates_are_checked() {
        let own = Certificates::new();
        let file = |name: &str| own.folder.path().join(name);
        let error = Security::tls(&file("cert"), &file("ca"), &file("ca")).unwrap_err();
        assert!(error.to_string().contains("--peer_tls_key_file"), "{error}");
        let error = Security::tls(&file("key"), &file("key"), &file("ca")).unwrap_err();
        assert!(
            error.to_string().contains("--peer_tls_cert_file"),
            "{error}"
        );
    }

    #[test]
    fn short_keys_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "  short \n").unwrap();
        let error = Security::key(&path).unwrap_err().to_string();
        assert!(error.contains("shorter than 16 bytes"), "{error}");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        assert!(!Security::key(&path).unwrap().is_open());
        assert!(Security::key(&folder.path().join("none")).is_err());
    }
}
