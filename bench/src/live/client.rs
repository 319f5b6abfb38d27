//! A framework's connection, in any of the protocols that a master speaks.

use anyhow::{Context, Result, anyhow, bail};
use futures_util::StreamExt;
use reqwest::{Response, header};
use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
};
use tepui_proto::{json, mesos::v1::scheduler, recordio};
use tepui_scheduler_api::{Driver, Event, Events, Options, Session, Transport, call, task, v1};

/// The protocols by their names among the parameters.
pub(super) const TRANSPORTS: &[&str] = &["grpc", "http", "json"];

/// Larger events are refused; offers of 40,000 agents in JSON are about 80 MB.
const MAX_RECORD: usize = 512 << 20;

/// What a framework hears.
pub(super) enum Heard {
    Offers(Vec<v1::Offer>),
    Rescind(v1::OfferId),
    /// Already acknowledged.
    Update(Box<v1::TaskStatus>),
    Other,
}

/// One framework's subscription.
pub(super) struct Client {
    pub(super) calls: Calls,
    events: Source,
}

/// Makes calls; cheap to clone.
#[derive(Clone)]
pub(super) enum Calls {
    Session(Driver),
    Json(Arc<JsonCalls>),
}

enum Source {
    Session(Events),
    Json(JsonEvents),
}

/// Posts calls in JSON.
pub(super) struct JsonCalls {
    http: reqwest::Client,
    url: String,
    stream_id: Option<header::HeaderValue>,
    framework_id: OnceLock<v1::FrameworkId>,
}

type Body = Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>;

struct JsonEvents {
    body: Body,
    decoder: recordio::Decoder,
    /// To be acknowledged and handed out: who waits may stop waiting in between.
    update: Option<Box<v1::TaskStatus>>,
    calls: Arc<JsonCalls>,
}

impl Client {
    /// Subscribes a framework of this name in this role.
    pub(super) async fn subscribe(
        masters: &[String],
        transport: &str,
        name: &str,
        role: &str,
    ) -> Result<Client> {
        let mut info = task::framework("root", name);
        info.roles = vec![role.to_owned()];
        info.capabilities = vec![v1::framework_info::Capability {
            r#type: Some(v1::framework_info::capability::Type::MultiRole as i32),
        }];
        let kind = match transport {
            "json" => return subscribe_json(masters, info).await,
            "http" => Transport::Http,
            _ => Transport::Grpc,
        };
        let Session { driver, events } =
            Session::start(Options::new(masters.iter().cloned(), info).transport(kind))?;
        Ok(Client {
            calls: Calls::Session(driver),
            events: Source::Session(events),
        })
    }

    /// The next thing that it hears; an error when there will be nothing any more. Nothing is
    /// lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Heard> {
        let event = match &mut self.events {
            Source::Session(events) => events.next().await.context("the session ended")??,
            Source::Json(events) => return events.next().await,
        };
        match event {
            Event::Offers(offers) => Ok(Heard::Offers(offers)),
            Event::Rescind(id) => Ok(Heard::Rescind(id)),
            Event::Update(status) => Ok(Heard::Update(status)),
            Event::Disconnected { cause } => Err(anyhow!("disconnected: {cause}")),
            _ => Ok(Heard::Other),
        }
    }
}

impl Calls {
    pub(super) async fn call(&self, call: scheduler::Call) -> Result<()> {
        match self {
            Calls::Session(driver) => Ok(driver.call(call).await?),
            Calls::Json(calls) => calls.call(call).await,
        }
    }

    /// Launches tasks on an offer; what is left of it may be offered again at once.
    pub(super) async fn launch(&self, offer: &v1::Offer, tasks: Vec<v1::TaskInfo>) -> Result<()> {
        let offers = vec![offer.id.clone()];
        let accept = call::accept(offers, vec![call::launch(tasks)], Some(refuse(0.0)));
        self.call(accept).await.context("launching")
    }

    /// Declines offers for so many seconds.
    pub(super) async fn decline(&self, offers: Vec<v1::OfferId>, seconds: f64) -> Result<()> {
        let decline = call::decline(offers, Some(refuse(seconds)));
        self.call(decline).await.context("declining")
    }
}

fn refuse(seconds: f64) -> v1::Filters {
    v1::Filters {
        refuse_seconds: Some(seconds),
    }
}

async fn subscribe_json(masters: &[String], info: v1::FrameworkInfo) -> Result<Client> {
    // Installing twice is an error that means "already there", which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder()
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let subscribe = call::subscribe(info, Vec::new());
    let master = masters.first().context("no master")?;
    let mut url = format!("http://{master}/api/v1/scheduler");
    // One that follows names the leader; a second redirection would be a change of leader.
    for _ in 0..3 {
        let response = post(&http, &url, None, &subscribe).send().await?;
        if response.status().is_redirection() {
            url = location(&response).context("a redirection without a place")?;
            continue;
        }
        if !response.status().is_success() {
            bail!(
                "{url} answered {}: {}",
                response.status(),
                response.text().await?
            );
        }
        let calls = Arc::new(JsonCalls {
            http,
            url,
            stream_id: response.headers().get("mesos-stream-id").cloned(),
            framework_id: OnceLock::new(),
        });
        let events = JsonEvents {
            body: Box::pin(response.bytes_stream()),
            decoder: recordio::Decoder::new(MAX_RECORD),
            update: None,
            calls: calls.clone(),
        };
        return Ok(Client {
            calls: Calls::Json(calls),
            events: Source::Json(events),
        });
    }
    bail!("{master} and the others send each other's clients around")
}

fn location(response: &Response) -> Option<String> {
    let to = response.headers().get(header::LOCATION)?.to_str().ok()?;
    match to.strip_prefix("//") {
        Some(rest) => Some(format!("http://{rest}")),
        None => Some(to.to_owned()),
    }
}

fn post(
    http: &reqwest::Client,
    url: &str,
    stream_id: Option<&header::HeaderValue>,
    call: &scheduler::Call,
) -> reqwest::RequestBuilder {
    let request = http
        .post(url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .body(json::encode(call));
    match stream_id {
        None => request,
        Some(id) => request.header("mesos-stream-id", id),
    }
}

impl JsonCalls {
    async fn call(&self, mut call: scheduler::Call) -> Result<()> {
        call.framework_id = self.framework_id.get().cloned();
        let response = post(&self.http, &self.url, self.stream_id.as_ref(), &call)
            .send()
            .await?;
        if !response.status().is_success() {
            bail!(
                "{} answered {}: {}",
                self.url,
                response.status(),
                response.text().await?
            );
        }
        Ok(())
    }
}

impl JsonEvents {
    async fn next(&mut self) -> Result<Heard> {
        if self.update.is_some() {
            return self.acknowledge().await;
        }
        let event: scheduler::Event = loop {
            if let Some(record) = self.decoder.next_record()? {
                break json::decode(&record)?;
            }
            let chunk = self
                .body
                .next()
                .await
                .context("the master closed the stream")??;
            self.decoder.push(&chunk);
        };
        if let Some(it) = event.subscribed {
            let _ = self.calls.framework_id.set(it.framework_id);
        } else if let Some(it) = event.offers {
            return Ok(Heard::Offers(it.offers));
        } else if let Some(it) = event.rescind {
            return Ok(Heard::Rescind(it.offer_id));
        } else if let Some(it) = event.error {
            bail!("the master said: {}", it.message);
        } else if let Some(it) = event.update {
            self.update = Some(Box::new(it.status));
            return self.acknowledge().await;
        }
        Ok(Heard::Other)
    }

    async fn acknowledge(&mut self) -> Result<Heard> {
        if let Some(status) = &self.update
            && let (Some(agent), Some(uuid)) = (status.agent_id.clone(), status.uuid.clone())
        {
            let acknowledge = call::acknowledge(agent, status.task_id.clone(), uuid);
            self.calls.call(acknowledge).await?;
        }
        Ok(self.update.take().map_or(Heard::Other, Heard::Update))
    }
}
