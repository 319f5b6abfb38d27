//! The masters' state service: small, durable, versioned variables, leases and watches.
//!
//! What Mesos' State library and a ZooKeeper were for: a framework keeps its id and its plans
//! here, and elects the one of its instances that leads. Every principal has a space of names
//! of its own (those who need no credentials share one).
//!
//! ```no_run
//! use tepui_scheduler_api::state::{Expect, State, Written};
//!
//! # async fn run() -> tepui_scheduler_api::Result<()> {
//! let state = State::new(["127.0.0.1:5050"])?;
//! // Whatever was there before.
//! state.set("framework/id", "f-0001", Expect::Any).await?;
//! // Only if nobody changed it since it was read.
//! let plan = state.get("plan").await?;
//! match state.set("plan", "two of each", Expect::what_was(&plan)).await? {
//!     Written::Done(version) => println!("version {version}"),
//!     Written::Conflict(current) => println!("somebody was faster: {current:?}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - **Reads** are linearizable: they see every write that was answered before they began.
//! - **Writes** are answered when they are durable on most masters. Each is sent until a leader
//!   has answered it and done at most once, also over a failover of the masters: it carries an
//!   id by which the next leader knows it again.
//! - **Watches** ([`State::watch`]) show what is there and then every change. Over a change of
//!   leader they begin anew by themselves, with what changed meanwhile.
//! - **Leases** ([`State::lease`]) bind variables to the life of a process. A new leader gives
//!   every lease its whole time again, so that a failover of the masters ends none.
//! - **[`elect`]** is an election made of these.

mod election;
mod lease;
mod watch;

pub use election::{Elected, elect};
pub use lease::Lease;
pub use watch::{Change, Watch};

use crate::{
    backoff::Backoff,
    error::{Error, Result},
    leader::{self, Masters},
    transport::{self, LEADER, MASTERS, NOT, WAIT},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tepui_proto::tepui::state::v1::{
    self as wire, state_client::StateClient, write_response::Outcome,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout, timeout_at},
};
use tonic::{
    Code, Request, Response, Status,
    metadata::AsciiMetadataValue,
    transport::{Channel, Endpoint},
};

/// One try: a master that does not lead waits [`leader::WAIT`] for one that does.
const TRY: Duration = Duration::from_secs(6);
/// Over this a connection attempt is given up.
const CONNECT: Duration = Duration::from_secs(3);
/// A page of a list is about 1 MiB, but one variable may be as large in addition.
const MAX_MESSAGE: usize = 16 << 20;

/// A variable.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// What it is.
    pub value: Bytes,
    /// Rises with every write of the principal; never used twice, so it also serves as a
    /// fencing token.
    pub version: u64,
    /// The lease with which it ends, if any.
    pub lease: Option<u64>,
}

impl From<wire::Variable> for Variable {
    fn from(it: wire::Variable) -> Variable {
        Variable {
            name: it.name,
            value: it.value,
            version: it.version,
            lease: (it.lease_id != 0).then_some(it.lease_id),
        }
    }
}

/// What must be there for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Whatever there is.
    Any,
    /// No variable of that name.
    Absent,
    /// The variable in this version.
    Version(u64),
}

impl Expect {
    /// What a read has shown.
    pub fn what_was(variable: &Option<Variable>) -> Expect {
        match variable {
            Some(variable) => Expect::Version(variable.version),
            None => Expect::Absent,
        }
    }

    fn to_wire(self) -> Option<u64> {
        match self {
            Expect::Any => None,
            Expect::Absent => Some(0),
            Expect::Version(version) => Some(version),
        }
    }
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// It is done and durable; the variable's new version.
    Done(u64),
    /// It is not done: this is there instead of what was expected.
    Conflict(Option<Variable>),
}

/// How a [`State`] is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// `host:port` of some or all masters; the leader is found from any of them.
    pub masters: Vec<String>,
    /// Principal and secret, for masters that ask frameworks for them.
    pub credentials: Option<(String, String)>,
    /// How long a request is tried before it ends with [`Error::Disconnected`].
    pub patience: Duration,
}

impl Options {
    /// Defaults: no credentials, 30 s of patience.
    pub fn new<S: Into<String>>(masters: impl IntoIterator<Item = S>) -> Options {
        Options {
            masters: masters.into_iter().map(Into::into).collect(),
            credentials: None,
            patience: Duration::from_secs(30),
        }
    }

    /// Says who asks.
    #[must_use]
    pub fn credentials(mut self, principal: impl Into<String>, secret: impl Into<String>) -> Self {
        self.credentials = Some((principal.into(), secret.into()));
        self
    }

    /// Chooses how long a request is tried.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

/// The state service of a cluster. Cheap to clone; the clones share one connection.
#[derive(Debug, Clone)]
pub struct State(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    authorization: Option<AsciiMetadataValue>,
    patience: Duration,
    link: Mutex<Link>,
    /// The newest revision that any answer had.
    seen: AtomicU64,
}

/// The connection that is used now.
#[derive(Debug)]
struct Link {
    masters: Masters,
    channel: Option<Channel>,
    /// Rises whenever the channel or the master changes: of several requests that failed on
    /// the same channel, one moves on.
    generation: u64,
    /// What was learnt last.
    learnt: String,
}

/// A channel with the place where it leads.
struct Way {
    channel: Channel,
    generation: u64,
    dead: Option<String>,
}

/// A request of the service.
trait Call: Clone + Send + 'static {
    type Answer: Send;

    /// The name of a write.
    fn mark(&mut self) -> Option<&mut wire::WriteMark> {
        None
    }

    fn send(
        client: StateClient<Channel>,
        request: Request<Self>,
    ) -> impl Future<Output = Result<Response<Self::Answer>, Status>> + Send;
}

macro_rules! calls {
    ($($request:ident => $method:ident -> $answer:ty $(, $mark:ident)?;)*) => { $(
        impl Call for wire::$request {
            type Answer = $answer;

            $(fn mark(&mut self) -> Option<&mut wire::WriteMark> {
                self.$mark.as_mut()
            })?

            async fn send(
                mut client: StateClient<Channel>,
                request: Request<Self>,
            ) -> Result<Response<Self::Answer>, Status> {
                client.$method(request).await
            }
        }
    )* };
}

calls! {
    GetRequest => get -> wire::GetResponse;
    ListRequest => list -> wire::ListResponse;
    SetRequest => set -> wire::WriteResponse, mark;
    ExpungeRequest => expunge -> wire::WriteResponse, mark;
    WatchRequest => watch -> tonic::Streaming<wire::WatchEvent>;
    GrantLeaseRequest => grant_lease -> wire::GrantLeaseResponse, mark;
    RenewLeaseRequest => renew_lease -> wire::RenewLeaseResponse;
    RevokeLeaseRequest => revoke_lease -> wire::RevokeLeaseResponse, mark;
}

impl State {
    /// The service of these masters (`host:port`), without credentials.
    ///
    /// # Errors
    /// [`Error::InvalidMaster`] when the list is empty or malformed. That no master answers is
    /// no error before something is asked.
    pub fn new<S: Into<String>>(masters: impl IntoIterator<Item = S>) -> Result<State> {
        State::with(Options::new(masters))
    }

    /// As [`State::new`], with everything that can be chosen.
    ///
    /// # Errors
    /// As there.
    pub fn with(options: Options) -> Result<State> {
        let authorization = options.credentials.and_then(|(principal, secret)| {
            let encoded = BASE64_STANDARD.encode(format!("{principal}:{secret}"));
            // Base64 behind a word: always valid.
            format!("Basic {encoded}").parse().ok()
        });
        Ok(State(Arc::new(Inner {
            authorization,
            patience: options.patience,
            link: Mutex::new(Link {
                masters: Masters::new(&options.masters)?,
                channel: None,
                generation: 0,
                learnt: String::new(),
            }),
            seen: AtomicU64::new(0),
        })))
    }

    /// A variable, as it is now.
    ///
    /// # Errors
    /// [`Error::Rejected`] names what is wrong with the request, [`Error::Disconnected`] says
    /// that no leader answered in time. So it is with all methods.
    pub async fn get(&self, name: impl Into<String>) -> Result<Option<Variable>> {
        let name = name.into();
        let answer = self.call(wire::GetRequest { name }).await?;
        self.saw(answer.revision);
        Ok(answer.variable.map(Variable::from))
    }

    /// The variables whose names begin with `prefix` (all when empty), by name. They come in
    /// pages of about 1 MiB, each as of its own moment.
    ///
    /// # Errors
    /// As for [`State::get`].
    pub async fn list(&self, prefix: impl Into<String>) -> Result<Vec<Variable>> {
        let mut request = wire::ListRequest {
            prefix: prefix.into(),
            ..wire::ListRequest::default()
        };
        let mut variables: Vec<Variable> = Vec::new();
        loop {
            let page = self.call(request.clone()).await?;
            self.saw(page.revision);
            variables.extend(page.variables.into_iter().map(Variable::from));
            match variables.last() {
                Some(last) if page.more => request.after.clone_from(&last.name),
                _ => return Ok(variables),
            }
        }
    }

    /// Sets a variable, if what is there is what is expected.
    ///
    /// # Errors
    /// As for [`State::get`]; with [`Error::Disconnected`] and [`Error::Unknown`] it may or may
    /// not have been done.
    pub async fn set(
        &self,
        name: impl Into<String>,
        value: impl Into<Bytes>,
        expect: Expect,
    ) -> Result<Written> {
        self.write(name.into(), value.into(), expect, 0).await
    }

    /// As [`State::set`]; the variable ends with the lease.
    ///
    /// # Errors
    /// As there; 404 when the lease has ended.
    pub async fn set_leased(
        &self,
        name: impl Into<String>,
        value: impl Into<Bytes>,
        expect: Expect,
        lease: &Lease,
    ) -> Result<Written> {
        let id = lease.id();
        self.write(name.into(), value.into(), expect, id).await
    }

    async fn write(
        &self,
        name: String,
        value: Bytes,
        expect: Expect,
        lease_id: u64,
    ) -> Result<Written> {
        let request = wire::SetRequest {
            name,
            value,
            expected_version: expect.to_wire(),
            lease_id,
            mark: Some(self.mark()),
        };
        self.written(self.call(request).await?)
    }

    /// Removes a variable, if what is there is what is expected. [`Expect::Any`] also succeeds
    /// when there is none.
    ///
    /// # Errors
    /// As for [`State::set`].
    pub async fn expunge(&self, name: impl Into<String>, expect: Expect) -> Result<Written> {
        let request = wire::ExpungeRequest {
            name: name.into(),
            expected_version: expect.to_wire(),
            mark: Some(self.mark()),
        };
        self.written(self.call(request).await?)
    }

    /// A lease that is renewed in the background for as long as it is kept.
    ///
    /// # Errors
    /// As for [`State::set`]; `ttl` must be between a second and a day.
    pub async fn lease(&self, ttl: Duration) -> Result<Lease> {
        let asked = Instant::now();
        let request = wire::GrantLeaseRequest {
            ttl_seconds: ttl.as_secs_f64(),
            mark: Some(self.mark()),
        };
        let answer = self.call(request).await?;
        self.saw(answer.revision);
        Ok(Lease::keep(self.clone(), answer.lease_id, ttl, asked))
    }

    /// Everything whose name begins with `prefix` (all when empty), and every change from then
    /// on.
    pub fn watch(&self, prefix: impl Into<String>) -> Watch {
        Watch::start(self.clone(), prefix.into())
    }

    fn written(&self, answer: wire::WriteResponse) -> Result<Written> {
        self.saw(answer.revision);
        match answer.outcome {
            Some(Outcome::Version(version)) => Ok(Written::Done(version)),
            Some(Outcome::Conflict(conflict)) => {
                Ok(Written::Conflict(conflict.current.map(Variable::from)))
            }
            None => Err(Error::Unknown(
                "the answer has no outcome: the master is of a newer release".into(),
            )),
        }
    }

    fn saw(&self, revision: u64) {
        self.0.seen.fetch_max(revision, Ordering::Relaxed);
    }

    /// A name for a write, by which any leader knows it again.
    fn mark(&self) -> wire::WriteMark {
        wire::WriteMark {
            id: Bytes::copy_from_slice(&rand::random::<[u8; 16]>()),
            repeated: false,
            seen_revision: self.0.seen.load(Ordering::Relaxed),
        }
    }

    /// Asks until a leader answers.
    async fn call<C: Call>(&self, call: C) -> Result<C::Answer> {
        let until = Instant::now() + self.0.patience;
        self.call_until(call, until).await
    }

    async fn call_until<C: Call>(&self, mut call: C, until: Instant) -> Result<C::Answer> {
        let mut backoff = Backoff::new();
        let mut problem = "no master answered in time".to_owned();
        loop {
            match timeout_at(until, self.attempt(&mut call)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(Failed::For(error))) => return Err(error),
                Ok(Err(Failed::Elsewhere)) => continue,
                Ok(Err(Failed::Now(cause))) => problem = cause,
                Err(_) => return Err(Error::Disconnected(problem)),
            }
            let wait = tokio::time::sleep(backoff.next(rand::random()));
            if timeout_at(until, wait).await.is_err() {
                return Err(Error::Disconnected(problem));
            }
        }
    }

    async fn attempt<C: Call>(&self, call: &mut C) -> Result<C::Answer, Failed> {
        let way = self.way().await?;
        let mut request = Request::new(call.clone());
        let metadata = request.metadata_mut();
        metadata.insert(WAIT, leader::WAIT.as_secs().into());
        if let Some(dead) = way.dead.and_then(|it| it.parse().ok()) {
            metadata.insert(NOT, dead);
        }
        if let Some(value) = &self.0.authorization {
            metadata.insert("authorization", value.clone());
        }
        let client = StateClient::new(way.channel).max_decoding_message_size(MAX_MESSAGE);
        let answer = timeout(TRY, C::send(client, request)).await;
        let sent_before = call
            .mark()
            // From here on it may have been done.
            .is_some_and(|mark| std::mem::replace(&mut mark.repeated, true));
        let status = match answer {
            Ok(Ok(response)) => {
                self.learn(way.generation, &response).await;
                return Ok(response.into_inner());
            }
            Ok(Err(status)) => status,
            Err(_) => {
                let problem = "the master did not answer".to_owned();
                self.leave(way.generation, true).await;
                return Err(Failed::Now(problem));
            }
        };
        if let Some(leader) = status.metadata().get(LEADER) {
            // Refused at the door of a master that does not lead: it was not done there.
            if let Some(mark) = call.mark() {
                mark.repeated = sent_before;
            }
            let leader = leader.to_str().unwrap_or_default();
            return Err(self.follow(way.generation, leader).await);
        }
        let message = status.message().to_owned();
        match rejection(status.code()) {
            Some(_) if status.code() == Code::Aborted => Err(Failed::For(Error::Unknown(message))),
            Some(status) => Err(Failed::For(Error::Rejected { status, message })),
            None => {
                // A master that refuses says so at once; one that breaks is better not asked.
                let dead = status.code() != Code::Unavailable
                    || std::error::Error::source(&status).is_some();
                self.leave(way.generation, dead).await;
                Err(Failed::Now(message))
            }
        }
    }

    /// The connection that is used now, opened if need be.
    async fn way(&self) -> Result<Way, Failed> {
        let mut link = self.0.link.lock().await;
        let dead = link.masters.dead().map(str::to_owned);
        if let Some(channel) = link.channel.clone() {
            return Ok(Way {
                channel,
                generation: link.generation,
                dead,
            });
        }
        let master = link.masters.current().to_owned();
        let failed = |problem: String| Failed::Now(format!("{master}: {problem}"));
        let endpoint = Endpoint::from_shared(format!("http://{master}"));
        let endpoint = endpoint.map_err(|error| failed(error.to_string()))?;
        let connected = timeout(CONNECT, transport::grpc::tuned(endpoint).connect()).await;
        let problem = match connected {
            Ok(Ok(channel)) => {
                link.generation += 1;
                link.channel = Some(channel.clone());
                return Ok(Way {
                    channel,
                    generation: link.generation,
                    dead,
                });
            }
            Ok(Err(error)) => transport::grpc::chain(&error),
            Err(_) => "it does not take connections".to_owned(),
        };
        link.masters.next(true);
        Err(failed(problem))
    }

    /// The leader answered on this channel.
    async fn learn<T>(&self, generation: u64, response: &Response<T>) {
        let masters = response.metadata().get(MASTERS);
        let Some(masters) = masters.and_then(|it| it.to_str().ok()) else {
            return;
        };
        let mut link = self.0.link.lock().await;
        if link.generation == generation && link.learnt != masters {
            link.masters.learn(&transport::list(masters));
            masters.clone_into(&mut link.learnt);
        }
    }

    /// A master named the leader.
    async fn follow(&self, generation: u64, leader: &str) -> Failed {
        let mut link = self.0.link.lock().await;
        if link.generation != generation {
            return Failed::Elsewhere;
        }
        link.channel = None;
        link.learnt.clear();
        match link.masters.follow(leader) {
            true => Failed::Elsewhere,
            false => {
                link.masters.next(false);
                Failed::Now("the masters do not agree on who leads".to_owned())
            }
        }
    }

    /// The master of this channel did not do.
    async fn leave(&self, generation: u64, dead: bool) {
        let mut link = self.0.link.lock().await;
        if link.generation == generation {
            link.channel = None;
            link.learnt.clear();
            link.masters.next(dead);
        }
    }
}

/// Why a try failed.
enum Failed {
    /// For good.
    For(Error),
    /// It is worth to try at once.
    Elsewhere,
    /// For now.
    Now(String),
}

/// The HTTP status of a refusal that another try would get again.
fn rejection(code: Code) -> Option<u16> {
    Some(match code {
        Code::InvalidArgument => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        _ => return None,
    })
}
