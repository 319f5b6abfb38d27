//! What every handler shares, and the checks that come before any of them: who asks, and
//! whether this master is the one to answer.
//!
//! A master that does not lead sends clients to the one that does (307 with a Location as
//! Mesos has it, UNAVAILABLE with `tepui-leader` over gRPC), or answers 503 when it knows of
//! none. A client that would rather wait for the next leader than ask again and again says so
//! with `tepui-wait`, and one that has found the leader dead with `tepui-not`.

use crate::{
    config::Settings,
    endpoints::state::Identity,
    shell::{
        core::{ReplicaEvent, Shared},
        destinations::{Answer, Destinations},
        intake::{Class, Intake, Producer},
        leadership::Leadership,
        peers::Peers,
        raft::RaftHandle,
        sessions::Sessions,
        stale::{Past, Stale},
        view_thread::ViewHandle,
    },
    view::View,
};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use std::{
    sync::{Arc, OnceLock, atomic::AtomicUsize},
    time::Duration,
};
use tepui_master_machine::{
    input::{Input, OperatorInput, OperatorRequest, RequestId, SchedulerCall, StreamRef},
    model::{FrameworkId, Principal, Role, call::Call, operator::Explanation, wire},
    output::Status,
};
use tepui_server::{
    auth::Realm, body::Refusal, files::Files, listener::Stop, respond, routing, version,
};
use tokio::sync::watch;

/// Seconds for which a client would wait for a leader.
pub(crate) const WAIT: &str = "tepui-wait";
/// `host:port` of a leader that the client could not reach.
pub(crate) const NOT: &str = "tepui-not";
/// Every master, in the answer to a subscription: `host:port`, separated by commas.
pub(crate) const MASTERS: &str = "tepui-masters";
/// Nobody waits longer, so that a partitioned master does not collect clients.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Asks for what this master has when it does not lead; also in the answer.
const STALE: &str = "tepui-stale";

/// Parts of the master that its handlers share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) intake: Arc<Intake<ReplicaEvent>>,
    pub(crate) destinations: Arc<Destinations>,
    pub(crate) view: ViewHandle,
    pub(crate) shared: Arc<Shared>,
    /// Who leads.
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// The log, and the state as far as it is committed here.
    pub(crate) replica: OnceLock<RaftHandle>,
    /// The other masters.
    pub(crate) peers: Arc<Peers>,
    /// What stale reads are answered from.
    pub(crate) stale: Stale<View>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) files: Files,
    pub(crate) stop: Stop,
    /// Seconds since the epoch.
    pub(crate) start_time: f64,
    /// Subscriptions of operators that are open.
    pub(crate) subscribers: AtomicUsize,
}

/// What [`Failure::lost`] says.
const LOST: &str = "this master stopped leading before the answer was known";

/// Why something was not done: the status of Mesos and a text.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Failure {
        Failure {
            status,
            message: message.into(),
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, message)
    }

    /// The leadership ended while the request waited: whether it took effect is not known.
    pub(crate) fn lost() -> Failure {
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, LOST)
    }

    /// It is [`Failure::lost`].
    fn is_lost(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE && self.message == LOST
    }

    pub(crate) fn response(self) -> Response {
        respond::text(self.status, self.message)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Box::new(failure.response())
    }
}

/// The answer of a handler, whichever way it came to it.
pub(crate) fn settle(answer: Result<Response, Refusal>) -> Response {
    answer.unwrap_or_else(|refusal| *refusal)
}

impl Answer {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status.http_code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn failure(self) -> Failure {
        Failure::new(self.status_code(), self.message)
    }
}

impl From<Answer> for Result<StatusCode, Failure> {
    fn from(answer: Answer) -> Self {
        match answer.status {
            Status::Ok | Status::Accepted => Ok(answer.status_code()),
            _ => Err(answer.failure()),
        }
    }
}

fn realm_name(realm: Realm) -> &'static str {
    match realm {
        Realm::ReadOnly => "mesos-master-readonly",
        Realm::ReadWrite => "mesos-master-readwrite",
        Realm::Frameworks => "mesos-master-scheduler",
        Realm::Agents => "tepui-master-agents",
    }
}

impl App {
    /// Who asks.
    ///
    /// # Errors
    /// 401 with a challenge; 503 for somebody who is held off.
    pub(crate) fn admit(
        &self,
        realm: Realm,
        headers: &HeaderMap,
    ) -> Result<Option<Principal>, Refusal> {
        let principal = self.authenticate(realm, headers).map_err(|reason| {
            let mut response = respond::text(StatusCode::UNAUTHORIZED, reason);
            let challenge = format!("Basic realm=\"{}\"", realm_name(realm));
            if let Ok(challenge) = HeaderValue::from_str(&challenge) {
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, challenge);
            }
            Box::new(response)
        })?;
        match self.is_held_off(principal.as_ref()) {
            true => Err(Box::new(respond::text(
                StatusCode::SERVICE_UNAVAILABLE,
                "a request of this principal caused a failure a moment ago: it has to wait",
            ))),
            false => Ok(principal),
        }
    }

    /// Who asks, for the doors that are not HTTP; the error is a text.
    pub(crate) fn authenticate(
        &self,
        realm: Realm,
        headers: &HeaderMap,
    ) -> Result<Option<Principal>, &'static str> {
        let header = headers
            .get(header::AUTHORIZATION)
            .and_then(|it| it.to_str().ok());
        self.settings
            .authority
            .admit(realm, header)
            .map_err(|refused| refused.reason)
    }

    pub(crate) fn is_held_off(&self, principal: Option<&Principal>) -> bool {
        self.shared.is_held_off(principal.map(Principal::as_str))
    }

    /// `host:port` of the master that leads, if any is known.
    pub(crate) fn leader(&self) -> Option<String> {
        let known = self.leadership.borrow();
        // Between its election and its machine's birth it serves nobody.
        let unborn = known.here && !self.shared.is_leading();
        known.leader.clone().filter(|_| !unborn)
    }

    /// Where to send a request that only a leader can answer; nothing when this is it. Waits
    /// for a leader when the client asks for that.
    pub(crate) async fn elsewhere(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        match self.place(headers).await {
            Place::Here => Ok(()),
            Place::There(leader) => {
                let path = uri.path_and_query().map_or("/", |it| it.as_str());
                Err(Box::new(respond::redirect(&format!("//{leader}{path}"))))
            }
            Place::Nowhere => Err(Box::new(no_leader())),
        }
    }

    /// Who answers a request that only a leader can answer.
    pub(crate) async fn place(&self, headers: &HeaderMap) -> Place {
        let place = self.place_now(headers);
        let wait = headers
            .get(WAIT)
            .and_then(|it| it.to_str().ok()?.parse().ok())
            .and_then(|it| Duration::try_from_secs_f64(it).ok());
        let (Place::Nowhere, Some(wait)) = (&place, wait) else {
            return place;
        };
        let (mut leadership, mut born) = (self.leadership.clone(), self.shared.born());
        let found = async {
            loop {
                let place = self.place_now(headers);
                if !matches!(place, Place::Nowhere) {
                    return place;
                }
                let alive = tokio::select! {
                    changed = leadership.changed() => changed.is_ok(),
                    changed = born.changed() => changed.is_ok(),
                    () = self.stop.stopped() => false,
                };
                if !alive {
                    return Place::Nowhere;
                }
            }
        };
        let found = tokio::time::timeout(wait.min(LONGEST_WAIT), found).await;
        found.unwrap_or(Place::Nowhere)
    }

    fn place_now(&self, headers: &HeaderMap) -> Place {
        if self.shared.is_leading() {
            return Place::Here;
        }
        let leadership = self.leadership.borrow();
        let dead = headers.get(NOT).map(|it| it.as_bytes());
        match leadership.elsewhere() {
            Some(leader) if dead != Some(leader.as_bytes()) => Place::There(leader.to_owned()),
            _ => Place::Nowhere,
        }
    }

    /// Every master that is known, as a header tells clients.
    pub(crate) fn masters(&self) -> Option<HeaderValue> {
        let masters = self.leadership.borrow().masters.join(",");
        HeaderValue::from_str(&masters).ok()
    }

    /// What a read at this master sees, whoever leads, when the client asks for that with
    /// `stale=true` in the query or a header `tepui-stale: true`: committed a moment ago, and
    /// without what is volatile (offers, connections).
    pub(crate) async fn stale(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Option<(Arc<Past<View>>, Arc<View>)> {
        let wanted = headers.get(STALE).is_some_and(|it| it == "true")
            || routing::parameter(uri.query(), "stale").is_some_and(|it| it == "true");
        if !wanted || self.shared.is_leading() {
            return None;
        }
        let replica = self.replica.get()?.clone();
        let past = self.stale.newest();
        let view = past.view(move || View::stale(*replica.committed())).await;
        Some((past, view))
    }

    /// A snapshot for a read.
    pub(crate) async fn snapshot(&self) -> Result<Arc<View>, Failure> {
        self.view.snapshot().await.ok_or_else(|| {
            Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "no master leads at the moment",
            )
        })
    }

    /// Hands a scheduler's call to the machine and waits for its answer.
    pub(crate) async fn call(&self, call: SchedulerCall) -> Result<StatusCode, Failure> {
        let stream_id = match &call.stream {
            StreamRef::Header(stream_id) => stream_id.as_deref(),
            StreamRef::Connection(_) => None,
        };
        let producer = self.sessions.of(stream_id);
        let comes_again = matches!(
            call.call,
            Call::Acknowledge { .. }
                | Call::AcknowledgeOperationStatus { .. }
                | Call::Reconcile { .. }
        );
        let answer = self.ask(&producer, |reply| {
            Input::SchedulerCall(SchedulerCall {
                reply: Some(reply),
                ..call
            })
        });
        match answer.await {
            // An update that is not acknowledged comes again from the agent, and a framework asks
            // again when it subscribes: taking it is true, and clients of Mesos, which answers so
            // before it does anything, take anything else for the end.
            Err(failure) if comes_again && failure.is_lost() => Ok(StatusCode::ACCEPTED),
            answer => answer,
        }
    }

    /// Hands a request to the machine and waits for its answer.
    async fn ask(
        &self,
        producer: &Producer<ReplicaEvent>,
        input: impl FnOnce(RequestId) -> Input,
    ) -> Result<StatusCode, Failure> {
        let (request, answer) = self.destinations.request();
        // A client that goes away takes its interest in the answer along.
        let _forget = Forget(&self.destinations, request);
        producer.send(input(request)).await;
        match answer.await {
            Ok(answer) => answer.into(),
            Err(_) => Err(Failure::lost()),
        }
    }

    /// An operator's write.
    pub(crate) async fn operate(
        &self,
        principal: Option<Principal>,
        request: OperatorRequest,
    ) -> Result<StatusCode, Failure> {
        let connection = self.destinations.connection();
        let producer = self.intake.connect(connection, Class::Client);
        self.ask(&producer, |reply| {
            Input::Operator(OperatorInput {
                reply,
                principal,
                request,
            })
        })
        .await
    }

    /// Why a framework or a role is offered what it is.
    pub(crate) async fn explain(
        &self,
        framework_id: Option<FrameworkId>,
        role: Option<Role>,
    ) -> Result<Explanation, Failure> {
        let producer = self
            .intake
            .connect(self.destinations.connection(), Class::Client);
        let (request, answer) = self.destinations.explain_request();
        let _forget = Forget(&self.destinations, request);
        let input = Input::Operator(OperatorInput {
            reply: request,
            principal: None,
            request: OperatorRequest::Explain { framework_id, role },
        });
        producer.send(input).await;
        match answer.await.map_err(|_| Failure::lost())? {
            Ok(explanation) => Ok(*explanation),
            Err(refusal) => Err(refusal.failure()),
        }
    }

    /// Who this master is.
    pub(crate) fn identity(&self) -> Identity {
        Identity {
            info: self.master_info(),
            start_time: self.start_time,
            elected_time: self.shared.status().elected_time,
            cluster: self.settings.cluster.clone(),
            log_dir: self.settings.log_dir.clone(),
            flags: self.settings.flags.rendered(),
            version: version::fields()
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        }
    }

    /// As SUBSCRIBED has it.
    pub(crate) fn master_info(&self) -> wire::MasterInfo {
        let of_term = self.shared.status().master_info;
        match of_term.id.is_empty() {
            true => self.settings.machine.master_info.clone(),
            false => of_term,
        }
    }
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// This master.
    Here,
    /// The master at `host:port`.
    There(String),
    /// Nobody at the moment.
    Nowhere,
}

/// Marks an answer that may be of the past.
pub(crate) fn mark_stale(mut response: Response) -> Response {
    let yes = HeaderValue::from_static("true");
    response.headers_mut().insert(STALE, yes);
    response
}

/// 503 while nobody leads.
pub(crate) fn no_leader() -> Response {
    respond::text(
        StatusCode::SERVICE_UNAVAILABLE,
        "no master leads at the moment\n",
    )
}

/// Forgets a request when its handler ends.
pub(crate) struct Forget<'a>(pub(crate) &'a Destinations, pub(crate) RequestId);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.forget_request(self.1);
    }
}
