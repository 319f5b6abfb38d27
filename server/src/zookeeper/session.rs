//! One connection to one server: requests in order, pings, events of watches.

use super::jute::{Malformed, Reader, Stat, Writer};
use bytes::{Bytes, BytesMut};
use std::{collections::VecDeque, io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
    time::{Instant, timeout},
};

/// Requests that wait for the socket; a caller with more waits itself.
const QUEUE: usize = 64;
/// The largest answer taken: ten times what a node may hold.
const MAX_FRAME: usize = 10 << 20;

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const EXISTS: i32 = 3;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
const GET_CHILDREN: i32 = 8;
const PING: i32 = 11;
const MULTI: i32 = 14;
const AUTH: i32 = 100;
const CLOSE: i32 = -11;

const XID_EVENT: i32 = -1;
const XID_PING: i32 = -2;
const XID_AUTH: i32 = -4;

/// What a server refuses with; those that are told apart here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// There is no such node.
    NoNode,
    /// There is one already.
    NodeExists,
    /// Its data was changed since it was read.
    BadVersion,
    /// The credentials are not those with which the node was made.
    NoAuth,
    /// Any other.
    Other(i32),
}

impl Code {
    fn of(code: i32) -> Code {
        match code {
            -101 => Code::NoNode,
            -102 => Code::NoAuth,
            -103 => Code::BadVersion,
            -110 => Code::NodeExists,
            code => Code::Other(code),
        }
    }
}

/// What can go wrong with a server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, or the connection broke.
    #[error("connection to ZooKeeper")]
    Connection(#[source] io::Error),
    /// It did not answer in time.
    #[error("ZooKeeper did not answer in time")]
    Silent,
    /// It does not speak the protocol.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The session is over: what hung on it is gone.
    #[error("the ZooKeeper session has expired")]
    Expired,
    /// It refuses the credentials.
    #[error("ZooKeeper refuses the credentials")]
    Credentials,
    /// It refuses a request.
    #[error("ZooKeeper refuses: {0:?}")]
    Refused(Code),
}

/// A session's name and key, to go on with it on another connection.
#[derive(Clone, Default)]
pub(super) struct Ticket {
    pub(super) id: i64,
    password: Bytes,
}

/// Who may do what with a node.
#[derive(Debug, Clone, Copy)]
pub(super) enum Access {
    /// Everybody everything.
    Open,
    /// The one who made it everything, others read.
    Creator,
}

impl Access {
    fn write(self, writer: Writer) -> Writer {
        match self {
            Access::Open => writer.int(1).int(31).text("world").text("anyone"),
            Access::Creator => writer
                .int(2)
                .int(31)
                .text("auth")
                .text("")
                .int(1)
                .text("world")
                .text("anyone"),
        }
    }
}

/// How long a node lives, and whether it gets a number behind its name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mode {
    Persistent = 0,
    EphemeralSequential = 3,
}

/// A step of a transaction.
#[derive(Debug)]
pub(super) enum Step {
    Create {
        path: String,
        data: Bytes,
        access: Access,
        mode: Mode,
    },
    Delete {
        path: String,
    },
    SetData {
        path: String,
        data: Bytes,
        version: i32,
    },
}

impl Step {
    fn kind(&self) -> i32 {
        match self {
            Step::Create { .. } => CREATE,
            Step::Delete { .. } => DELETE,
            Step::SetData { .. } => SET_DATA,
        }
    }

    fn write(&self, writer: Writer) -> Writer {
        match self {
            Step::Create {
                path,
                data,
                access,
                mode,
            } => access
                .write(writer.text(path).bytes(data))
                .int(*mode as i32),
            // Whatever its version.
            Step::Delete { path } => writer.text(path).int(-1),
            Step::SetData {
                path,
                data,
                version,
            } => writer.text(path).bytes(data).int(*version),
        }
    }
}

type Answer = Result<Bytes, Error>;

struct Request {
    kind: i32,
    body: Bytes,
    answer: oneshot::Sender<Answer>,
}

/// An open connection. Dropping it leaves the session to its time-out.
pub(super) struct Session {
    pub(super) ticket: Ticket,
    requests: mpsc::Sender<Request>,
    /// Counts what watches said; closes when the connection ends.
    events: watch::Receiver<u64>,
    task: AbortHandle,
    patience: Duration,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn connection(error: io::Error) -> Error {
    Error::Connection(error)
}

async fn frame(socket: &mut (impl AsyncReadExt + Unpin)) -> Result<Bytes, Error> {
    let length = socket.read_i32().await.map_err(connection)?;
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    if length > MAX_FRAME {
        return Err(Malformed.into());
    }
    let mut bytes = BytesMut::zeroed(length);
    socket.read_exact(&mut bytes).await.map_err(connection)?;
    Ok(bytes.freeze())
}

async fn write(socket: &mut (impl AsyncWriteExt + Unpin), body: &[u8]) -> Result<(), Error> {
    let bytes = Writer::default().bytes(body).done();
    socket.write_all(&bytes).await.map_err(connection)
}

impl Session {
    /// Begins a session on one server, or goes on with the one of `ticket` when its id is not 0.
    ///
    /// # Errors
    /// [`Error::Expired`] when there is nothing to go on with; others when the server is not
    /// to be had.
    pub(super) async fn open(
        server: &str,
        session_timeout: Duration,
        ticket: &Ticket,
        credentials: Option<&str>,
    ) -> Result<Session, Error> {
        // Half of what a session has to find another server.
        let patience = session_timeout / 2;
        let opened = async {
            let mut socket = TcpStream::connect(server).await.map_err(connection)?;
            // A latency of some ms is all that is lost without it.
            let _ = socket.set_nodelay(true);
            let milliseconds = i32::try_from(session_timeout.as_millis()).unwrap_or(i32::MAX);
            let hello = Writer::default()
                .int(0)
                .long(0)
                .int(milliseconds)
                .long(ticket.id)
                .bytes(match ticket.id {
                    0 => &[0; 16],
                    _ => &ticket.password,
                })
                .bool(false)
                .done();
            write(&mut socket, &hello).await?;
            let mut answer = Reader(frame(&mut socket).await?);
            answer.int()?;
            let granted = answer.int()?;
            let ticket = Ticket {
                id: answer.long()?,
                password: answer.bytes()?,
            };
            match u64::try_from(granted) {
                Ok(granted @ 1..) => Ok((socket, Duration::from_millis(granted), ticket)),
                _ => Err(Error::Expired),
            }
        };
        let opened = timeout(patience, opened).await.map_err(|_| Error::Silent)?;
        let (socket, granted, ticket) = opened?;
        let (reader, writer) = socket.into_split();
        let (requests, queue) = mpsc::channel(QUEUE);
        let (news, events) = watch::channel(0);
        let (frames, incoming) = mpsc::channel(1);
        let reading = tokio::spawn(read(reader, frames));
        let driver = Driver {
            writer,
            queue,
            incoming,
            news,
            waiting: VecDeque::new(),
            next: 1,
            granted,
        };
        let task = tokio::spawn(async move {
            let error = driver.run().await;
            reading.abort();
            tracing::debug!(%error, "a connection to ZooKeeper ended");
        });
        let session = Session {
            ticket,
            requests,
            events,
            task: task.abort_handle(),
            patience: granted,
        };
        if let Some(credentials) = credentials {
            let body = Writer::default()
                .int(0)
                .text("digest")
                .text(credentials)
                .done();
            session.ask(AUTH, body).await.map_err(|error| match error {
                Error::Refused(_) => Error::Credentials,
                error => error,
            })?;
        }
        Ok(session)
    }

    async fn ask(&self, kind: i32, body: Bytes) -> Answer {
        let (answer, receiver) = oneshot::channel();
        let request = Request { kind, body, answer };
        let asked = async {
            self.requests.send(request).await.ok()?;
            receiver.await.ok()
        };
        match timeout(self.patience, asked).await {
            Ok(Some(answer)) => answer,
            Ok(None) => Err(connection(io::ErrorKind::ConnectionReset.into())),
            Err(_) => Err(Error::Silent),
        }
    }

    /// Waits until a watch said something since the last call; an error when the connection
    /// ended.
    pub(super) async fn event(&mut self) -> Result<(), Error> {
        let changed = self.events.changed().await;
        changed.map_err(|_| connection(io::ErrorKind::ConnectionReset.into()))
    }

    /// Ends the session: what hangs on it goes at once.
    pub(super) async fn close(self) {
        // It ends by itself otherwise.
        let _ = self.ask(CLOSE, Bytes::new()).await;
    }

    /// Makes a node that stays.
    pub(super) async fn create(
        &self,
        path: &str,
        data: &[u8],
        access: Access,
    ) -> Result<(), Error> {
        let writer = Writer::default().text(path).bytes(data);
        let body = access.write(writer).int(Mode::Persistent as i32).done();
        self.ask(CREATE, body).await.map(drop)
    }

    /// What a node is; nothing when there is none.
    pub(super) async fn exists(&self, path: &str, watch: bool) -> Result<Option<Stat>, Error> {
        let body = Writer::default().text(path).bool(watch).done();
        match self.ask(EXISTS, body).await {
            Ok(answer) => Ok(Some(Reader(answer).stat()?)),
            Err(Error::Refused(Code::NoNode)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A node's data; nothing when there is none.
    pub(super) async fn data(&self, path: &str) -> Result<Option<(Bytes, Stat)>, Error> {
        let body = Writer::default().text(path).bool(false).done();
        match self.ask(GET_DATA, body).await {
            Ok(answer) => {
                let mut answer = Reader(answer);
                Ok(Some((answer.bytes()?, answer.stat()?)))
            }
            Err(Error::Refused(Code::NoNode)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Names of a node's children, and an event when they change; nothing when there is no such
    /// node.
    pub(super) async fn children(&self, path: &str) -> Result<Option<Vec<String>>, Error> {
        let body = Writer::default().text(path).bool(true).done();
        match self.ask(GET_CHILDREN, body).await {
            Ok(answer) => Ok(Some(Reader(answer).texts()?)),
            Err(Error::Refused(Code::NoNode)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a node, if it is there.
    pub(super) async fn delete(&self, path: &str) -> Result<(), Error> {
        let body = Writer::default().text(path).int(-1).done();
        match self.ask(DELETE, body).await {
            Ok(_) | Err(Error::Refused(Code::NoNode)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// All steps or none; the paths of the nodes made.
    pub(super) async fn multi(&self, steps: &[Step]) -> Result<Vec<String>, Error> {
        let mut writer = Writer::default();
        for step in steps {
            writer = step.write(writer.int(step.kind()).bool(false).int(-1));
        }
        let body = writer.int(-1).bool(true).int(-1).done();
        let mut answer = Reader(self.ask(MULTI, body).await?);
        let mut made = Vec::new();
        let mut failed = None;
        loop {
            let (kind, done, _) = (answer.int()?, answer.bool()?, answer.int()?);
            if done {
                break;
            }
            match kind {
                CREATE => made.push(answer.text()?),
                SET_DATA => drop(answer.stat()?),
                DELETE => {}
                -1 => {
                    // Of those that failed with another, too (-2).
                    let code = answer.int()?;
                    if code != 0 && code != -2 {
                        failed.get_or_insert(Code::of(code));
                    }
                }
                _ => return Err(Malformed.into()),
            }
        }
        match failed {
            Some(code) => Err(Error::Refused(code)),
            None => Ok(made),
        }
    }
}

/// Reading a frame must not be cut off half-way: it has a task of its own.
async fn read(mut reader: OwnedReadHalf, frames: mpsc::Sender<Result<Bytes, Error>>) {
    loop {
        let frame = frame(&mut reader).await;
        let failed = frame.is_err();
        if frames.send(frame).await.is_err() || failed {
            return;
        }
    }
}

struct Driver {
    writer: OwnedWriteHalf,
    queue: mpsc::Receiver<Request>,
    incoming: mpsc::Receiver<Result<Bytes, Error>>,
    news: watch::Sender<u64>,
    /// Asked and not answered, oldest first.
    waiting: VecDeque<(i32, oneshot::Sender<Answer>)>,
    next: i32,
    granted: Duration,
}

impl Driver {
    async fn run(mut self) -> Error {
        // As the Java client: a ping in each third, silence of two thirds is the end.
        let third = self.granted / 3;
        let mut heard = Instant::now();
        let mut ping_at = heard + third;
        loop {
            let result = tokio::select! {
                frame = self.incoming.recv() => {
                    heard = Instant::now();
                    match frame {
                        Some(Ok(frame)) => self.answer(frame),
                        Some(Err(error)) => Err(error),
                        None => Err(connection(io::ErrorKind::ConnectionReset.into())),
                    }
                }
                request = self.queue.recv() => match request {
                    Some(request) => self.send(request).await,
                    None => return connection(io::ErrorKind::ConnectionAborted.into()),
                },
                () = tokio::time::sleep_until(ping_at) => {
                    ping_at = Instant::now() + third;
                    match heard.elapsed() > third * 2 {
                        true => Err(Error::Silent),
                        false => {
                            let ping = Writer::default().int(XID_PING).int(PING).done();
                            write(&mut self.writer, &ping).await
                        }
                    }
                }
            };
            if let Err(error) = result {
                return error;
            }
        }
    }

    async fn send(&mut self, request: Request) -> Result<(), Error> {
        let xid = match request.kind {
            AUTH => XID_AUTH,
            _ => {
                let xid = self.next;
                self.next = self.next.checked_add(1).unwrap_or(1);
                xid
            }
        };
        self.waiting.push_back((xid, request.answer));
        let bytes = Writer::default()
            .int(xid)
            .int(request.kind)
            .raw(&request.body)
            .done();
        write(&mut self.writer, &bytes).await
    }

    fn answer(&mut self, frame: Bytes) -> Result<(), Error> {
        let mut reader = Reader(frame);
        let (xid, _, code) = (reader.int()?, reader.long()?, reader.int()?);
        match xid {
            XID_PING => return Ok(()),
            XID_EVENT => {
                self.news.send_modify(|it| *it += 1);
                return Ok(());
            }
            _ => {}
        }
        let (expected, answer) = self.waiting.pop_front().ok_or(Malformed)?;
        if expected != xid {
            return Err(Malformed.into());
        }
        // The caller may have gone.
        let _ = answer.send(match code {
            0 => Ok(reader.0),
            -112 => Err(Error::Expired),
            code => Err(Error::Refused(Code::of(code))),
        });
        Ok(())
    }
}
