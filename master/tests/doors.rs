//! A whole master in this process, spoken to by gRPC and HTTP over loopback.

use bytes::{Buf, BufMut};
use prost::Message;
use std::time::Duration;
use tepui_master::Handle;
use tepui_server::proto::{
    mesos::v1::{self, scheduler},
    tepui::{
        agent::v1::{
            AgentMessage, MasterMessage, Register, agent_link_client::AgentLinkClient,
            agent_message, master_message,
        },
        log::v1::command,
        operator::v1::operator_client::OperatorClient,
        scheduler::v1::scheduler_client::SchedulerClient,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};
use tonic::{
    Code, Request, Status, Streaming,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

/// How long any answer may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

struct Master {
    handle: Handle,
    _folder: tempfile::TempDir,
}

async fn master(flags: &[&str]) -> Master {
    let folder = tempfile::tempdir().unwrap();
    let mut all = vec![
        format!("--work_dir={}", folder.path().display()),
        "--port=0".to_owned(),
        "--allocation_interval=50ms".to_owned(),
    ];
    all.extend(flags.iter().map(|it| (*it).to_owned()));
    let handle = tepui_master::start(&all).await.unwrap();
    let master = Master {
        handle,
        _folder: folder,
    };
    // Until it leads it answers 503.
    timeout(PATIENCE, async {
        while !master
            .http("GET", "/state", "")
            .await
            .starts_with("HTTP/1.1 200")
        {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    master
}

impl Master {
    async fn channel(&self) -> Channel {
        let address = format!("http://{}", self.handle.address());
        Channel::from_shared(address)
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    async fn http(&self, method: &str, path: &str, body: &str) -> String {
        let mut socket = tokio::net::TcpStream::connect(self.handle.address())
            .await
            .unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn subscribe(failover_timeout: f64) -> scheduler::Call {
    scheduler::Call {
        r#type: Some(scheduler::call::Type::Subscribe as i32),
        subscribe: Some(scheduler::call::Subscribe {
            framework_info: v1::FrameworkInfo {
                user: "nobody".into(),
                name: "doors".into(),
                failover_timeout: Some(failover_timeout),
                ..Default::default()
            },
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A gRPC subscription.
struct Framework {
    calls: mpsc::Sender<scheduler::Call>,
    events: Streaming<scheduler::Event>,
    stream_id: String,
    id: v1::FrameworkId,
}

impl Framework {
    async fn connect(master: &Master) -> Framework {
        let (calls, outgoing) = mpsc::channel(8);
        calls.send(subscribe(60.0)).await.unwrap();
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
        let response = SchedulerClient::new(master.channel().await)
            .connect(outgoing)
            .await
            .unwrap();
        let stream_id = response
            .metadata()
            .get("mesos-stream-id")
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let mut framework = Framework {
            calls,
            events: response.into_inner(),
            stream_id,
            id: v1::FrameworkId::default(),
        };
        let subscribed = framework.next(scheduler::event::Type::Subscribed).await;
        framework.id = subscribed.subscribed.unwrap().framework_id;
        framework
    }

    async fn next(&mut self, kind: scheduler::event::Type) -> scheduler::Event {
        timeout(PATIENCE, async {
            loop {
                let event = self
                    .events
                    .message()
                    .await
                    .unwrap()
                    .expect("the stream goes on");
                if event.r#type() == kind {
                    return event;
                }
            }
        })
        .await
        .unwrap()
    }

    fn call(&self, kind: scheduler::call::Type) -> scheduler::Call {
        scheduler::Call {
            framework_id: Some(self.id.clone()),
            r#type: Some(kind as i32),
            ..Default::default()
        }
    }
}

/// An agent's end of a link.
struct Agent {
    frames: mpsc::Sender<AgentMessage>,
    orders: Streaming<MasterMessage>,
}

impl Agent {
    async fn attach(master: &Master) -> Agent {
        let scalar = |name: &str, value| v1::Resource {
            name: name.into(),
            r#type: v1::value::Type::Scalar as i32,
            scalar: Some(v1::value::Scalar { value }),
            ..Default::default()
        };
        let resources = vec![scalar("cpus", 4.0), scalar("mem", 1024.0)];
        let info = v1::AgentInfo {
            hostname: "127.0.0.9".into(),
            port: Some(5051),
            resources: resources.clone(),
            ..Default::default()
        };
        let register = Register {
            info_payload: info.encode_to_vec().into(),
            address: "127.0.0.9:5051".into(),
            version: "0.1.0".into(),
            boot_id: "boot".into(),
            total: resources,
            ..Default::default()
        };
        let (frames, outgoing) = mpsc::channel(8);
        let first = AgentMessage {
            kind: Some(agent_message::Kind::Register(register)),
        };
        frames.send(first).await.unwrap();
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
        let orders = AgentLinkClient::new(master.channel().await)
            .attach(outgoing)
            .await
            .unwrap()
            .into_inner();
        let mut agent = Agent { frames, orders };
        // Who leads is said at once, the invitation follows.
        for here in [false, true] {
            let word = agent.next().await;
            assert!(
                matches!(&word, master_message::Kind::Leader(it) if it.here == here),
                "{word:?}"
            );
        }
        let first = agent.next().await;
        assert!(
            matches!(first, master_message::Kind::Registered(_)),
            "{first:?}"
        );
        agent
    }

    async fn next(&mut self) -> master_message::Kind {
        let message = timeout(PATIENCE, self.orders.message()).await;
        message.unwrap().unwrap().unwrap().kind.unwrap()
    }
}

#[tokio::test]
async fn a_framework_on_grpc_gets_offers_and_its_calls_are_checked() {
    let master = master(&[]).await;
    let agent = Agent::attach(&master).await;
    let mut framework = Framework::connect(&master).await;
    let offers = framework
        .next(scheduler::event::Type::Offers)
        .await
        .offers
        .unwrap()
        .offers;
    assert_eq!(offers[0].hostname, "127.0.0.9");

    let mut client = SchedulerClient::new(master.channel().await);
    let revive = framework.call(scheduler::call::Type::Revive);
    let code = client.call(revive.clone()).await.unwrap_err().code();
    assert_eq!(code, Code::InvalidArgument, "without the stream's id");
    let mut request = Request::new(revive);
    let stream_id = framework.stream_id.parse().unwrap();
    request.metadata_mut().insert("mesos-stream-id", stream_id);
    client.call(request).await.unwrap();

    // On the stream: declined for no time at all, the agent is offered again.
    let mut decline = framework.call(scheduler::call::Type::Decline);
    decline.decline = Some(scheduler::call::Decline {
        offer_ids: offers.into_iter().map(|it| it.id).collect(),
        filters: Some(v1::Filters {
            refuse_seconds: Some(0.0),
        }),
    });
    framework.calls.send(decline).await.unwrap();
    framework.next(scheduler::event::Type::Offers).await;

    // A call that cannot be read ends the stream with its reason.
    framework
        .calls
        .send(scheduler::Call::default())
        .await
        .unwrap();
    let end = timeout(PATIENCE, async {
        loop {
            if let Err(status) = framework.events.message().await {
                return status;
            }
        }
    });
    assert_eq!(end.await.unwrap().code(), Code::InvalidArgument);
    drop(agent.frames);
    master.handle.shutdown().await;
}

/// A task for an offer.
fn task(offer: &v1::Offer) -> v1::TaskInfo {
    v1::TaskInfo {
        name: "task".into(),
        task_id: v1::TaskId {
            value: "task".into(),
        },
        agent_id: offer.agent_id.clone(),
        resources: vec![v1::Resource {
            name: "cpus".into(),
            r#type: v1::value::Type::Scalar as i32,
            scalar: Some(v1::value::Scalar { value: 1.0 }),
            ..Default::default()
        }],
        command: Some(v1::CommandInfo {
            value: Some("true".into()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Sends bytes as they are, as a client of a later version would.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}

/// A length-delimited field.
fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let kind = prost::encoding::WireType::LengthDelimited;
    prost::encoding::encode_key(number, kind, &mut bytes);
    prost::encoding::encode_varint(content.len() as u64, &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}

#[tokio::test]
async fn what_this_version_does_not_know_reaches_the_agent() {
    let master = master(&[]).await;
    let mut agent = Agent::attach(&master).await;
    let mut framework = Framework::connect(&master).await;
    let offers = framework.next(scheduler::event::Type::Offers).await;
    let offer = offers.offers.unwrap().offers.remove(0);

    // Call.accept.operations.launch.task_infos, the task with a field of the future.
    let future = field(12_345, b"from the future");
    let task = [task(&offer).encode_to_vec(), future.clone()].concat();
    let launch = v1::offer::Operation {
        r#type: Some(v1::offer::operation::Type::Launch as i32),
        ..Default::default()
    };
    let operation = [launch.encode_to_vec(), field(2, &field(1, &task))].concat();
    let accept = [field(1, &offer.id.encode_to_vec()), field(2, &operation)].concat();
    let call = framework.call(scheduler::call::Type::Accept);
    let call = [call.encode_to_vec(), field(4, &accept)].concat();

    let path = "/tepui.scheduler.v1.Scheduler/Call";
    let send = async |bytes: Vec<u8>| {
        let mut client = tonic::client::Grpc::new(master.channel().await);
        client.ready().await.unwrap();
        let mut request = Request::new(bytes);
        let stream_id = framework.stream_id.parse().unwrap();
        request.metadata_mut().insert("mesos-stream-id", stream_id);
        client
            .unary(request, http::uri::PathAndQuery::from_static(path), Raw)
            .await
    };
    // A task without its name is refused by the name of the field.
    let nameless = field(1, &field(2, &field(1, b"task")));
    let nameless = [launch.encode_to_vec(), field(2, &nameless)].concat();
    let revive = framework
        .call(scheduler::call::Type::Accept)
        .encode_to_vec();
    let refused = [revive, field(4, &field(2, &nameless))].concat();
    let refused = send(refused).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("name"), "{refused:?}");

    send(call).await.unwrap();
    let payload = timeout(PATIENCE, async {
        loop {
            let order = agent.orders.message().await.unwrap().unwrap();
            if let Some(master_message::Kind::Command(command)) = order.kind
                && let Some(command::Kind::RunTask(run)) = command.kind
            {
                return run.task_info_payload;
            }
        }
    });
    let payload = payload.await.unwrap();
    assert!(payload.windows(future.len()).any(|it| it == future));
    drop(agent.frames);
    master.handle.shutdown().await;
}

#[tokio::test]
async fn operators_ask_and_watch_on_grpc() {
    let master = master(&[]).await;
    let mut client = OperatorClient::new(master.channel().await);
    let call = |kind: v1::master::call::Type| v1::master::Call {
        r#type: Some(kind as i32),
        ..Default::default()
    };
    let health = client
        .call(call(v1::master::call::Type::GetHealth))
        .await
        .unwrap();
    assert!(health.into_inner().get_health.unwrap().healthy);
    let missing = client
        .call(call(v1::master::call::Type::Teardown))
        .await
        .unwrap_err();
    assert_eq!(missing.code(), Code::InvalidArgument);
    assert!(missing.message().contains("teardown"), "{missing:?}");

    let subscribe = call(v1::master::call::Type::Subscribe);
    let mut events = client.watch(subscribe).await.unwrap().into_inner();
    let mut seen = Vec::new();
    let framework = Framework::connect(&master).await;
    while seen.len() < 3 {
        let event = timeout(PATIENCE, events.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        seen.push(event.r#type());
    }
    use v1::master::event::Type;
    assert_eq!(
        seen,
        [Type::Subscribed, Type::Heartbeat, Type::FrameworkAdded]
    );
    drop(framework);
    master.handle.shutdown().await;
}

#[tokio::test]
async fn a_panic_of_the_machine_is_not_noticed_by_others() {
    let master = master(&["--inject_panics"]).await;
    let _agent = Agent::attach(&master).await;
    let mut framework = Framework::connect(&master).await;
    let offers = framework
        .next(scheduler::event::Type::Offers)
        .await
        .offers
        .unwrap()
        .offers;

    let answer = master.http("POST", "/tepui/v1/panic", "").await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    timeout(PATIENCE, async {
        while !master
            .http("GET", "/metrics/snapshot", "")
            .await
            .contains("\"master/panics_survived\":1.0")
        {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();

    // The old stream, the old id, the old offer: all of them still good.
    let mut accept = framework.call(scheduler::call::Type::Accept);
    let task = task(&offers[0]);
    accept.accept = Some(scheduler::call::Accept {
        offer_ids: vec![offers[0].id.clone()],
        operations: vec![v1::offer::Operation {
            r#type: Some(v1::offer::operation::Type::Launch as i32),
            launch: Some(v1::offer::operation::Launch {
                task_infos: vec![task],
            }),
            ..Default::default()
        }],
        filters: None,
    });
    framework.calls.send(accept).await.unwrap();
    timeout(PATIENCE, async {
        while !master
            .http("GET", "/tasks", "")
            .await
            .contains("\"TASK_STAGING\"")
        {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    master.handle.shutdown().await;
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let flags = [
        format!("--work_dir={}", folder.path().display()),
        "--port=0".to_owned(),
    ];
    for round in 0..2 {
        let handle = tepui_master::start(&flags).await.unwrap();
        let master = Master {
            handle,
            _folder: tempfile::tempdir().unwrap(),
        };
        let weights = timeout(PATIENCE, async {
            loop {
                let answer = master.http("GET", "/weights", "").await;
                if answer.starts_with("HTTP/1.1 200") {
                    return answer;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert_eq!(weights.contains("2.5"), round == 1, "{weights}");
        let put = r#"[{"role": "one", "weight": 2.5}]"#;
        let answer = master.http("PUT", "/weights", put).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        master.handle.shutdown().await;
    }
}

#[tokio::test]
async fn realms_that_ask_for_credentials_get_them() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = folder.path().join("credentials");
    std::fs::write(&credentials, "one secret\n").unwrap();
    let flag = format!("--credentials={}", credentials.display());
    let master = master(&[&flag, "--authenticate_http_readwrite"]).await;
    let answer = master.http("PUT", "/weights", "[]").await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(
        answer.contains("Basic realm=\"mesos-master-readwrite\""),
        "{answer}"
    );
    let mut client = OperatorClient::new(master.channel().await);
    let refused = client.call(v1::master::Call::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    master.handle.shutdown().await;
}
