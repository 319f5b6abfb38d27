//! A stand-in master over a real socket, and the agent's real binary.

use prost::Message;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use tepui_agent_machine::model::{
    Resources,
    link::{self, AgentMessage, MasterMessage, agent_message, master_message},
    log, wire,
};
use tepui_server::proto::tepui::agent::v1::agent_link_server::{AgentLink, AgentLinkServer};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Longest wait for anything; what takes this long will not come.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Of the one framework.
pub const FRAMEWORK: &str = "framework-0000";

type Outgoing = mpsc::Sender<Result<MasterMessage, Status>>;

struct Service {
    frames: mpsc::Sender<(u64, AgentMessage)>,
    links: Arc<Mutex<BTreeMap<u64, Outgoing>>>,
}

#[tonic::async_trait]
impl AgentLink for Service {
    type AttachStream = ReceiverStream<Result<MasterMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        // A test queues a few messages at a time.
        let (sender, receiver) = mpsc::channel(64);
        let link = {
            let mut links = self.links.lock().unwrap();
            let link = links.last_key_value().map_or(1, |(it, _)| it + 1);
            let invitation = link::Leader {
                here: true,
                ..Default::default()
            };
            let invitation = MasterMessage {
                // Whatever term the test goes on with: the agent is to say everything.
                fence: None,
                kind: Some(master_message::Kind::Leader(invitation)),
            };
            let _ = sender.try_send(Ok(invitation));
            links.insert(link, sender);
            link
        };
        let (frames, mut stream) = (self.frames.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(frame)) = stream.message().await {
                let _ = frames.send((link, frame)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// A task to be sent to the agent.
pub struct Task<'a> {
    pub id: &'a str,
    pub command: &'a str,
    pub edit: fn(&mut wire::TaskInfo),
}

impl<'a> Task<'a> {
    pub fn new(id: &'a str, command: &'a str) -> Task<'a> {
        Task {
            id,
            command,
            edit: |_| {},
        }
    }
}

/// The stand-in master. It holds no state but what it was sent.
pub struct Master {
    pub address: SocketAddr,
    pub term: u64,
    frames: mpsc::Receiver<(u64, AgentMessage)>,
    links: Arc<Mutex<BTreeMap<u64, Outgoing>>>,
    link: u64,
    sequence: u64,
}

impl Master {
    pub async fn start() -> Master {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (frames, received) = mpsc::channel(1024);
        let links: Arc<Mutex<BTreeMap<u64, Outgoing>>> = Arc::default();
        let service = Service {
            frames,
            links: links.clone(),
        };
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(AgentLinkServer::new(service))
                .serve_with_incoming(incoming),
        );
        Master {
            address,
            term: 1,
            frames: received,
            links,
            link: 0,
            sequence: 0,
        }
    }

    /// The first frame that `wanted` takes; others are dropped.
    pub async fn next<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(agent_message::Kind) -> Option<T>,
    ) -> T {
        let found = async {
            loop {
                let (link, frame) = self.frames.recv().await.expect("the service lives");
                if let Some(found) = frame.kind.and_then(&mut wanted) {
                    return (link, found);
                }
            }
        };
        let (link, found) = tokio::time::timeout(PATIENCE, found)
            .await
            .unwrap_or_else(|_| panic!("no {what}"));
        self.link = link;
        found
    }

    pub async fn send(&self, kind: master_message::Kind) {
        let message = MasterMessage {
            fence: Some(link::Fence {
                cluster_id: "cluster".into(),
                incarnation: 1,
                term: self.term,
            }),
            kind: Some(kind),
        };
        let link = self
            .links
            .lock()
            .unwrap()
            .get(&self.link)
            .cloned()
            .expect("a link");
        link.send(Ok(message)).await.expect("an open link");
    }

    pub async fn command(&mut self, kind: log::command::Kind) {
        self.sequence += 1;
        let command = log::Command {
            sequence: self.sequence,
            kind: Some(kind),
        };
        self.send(master_message::Kind::Command(command)).await;
    }

    /// Waits for the agent to register and takes it.
    pub async fn register(&mut self) -> link::Register {
        let register = self
            .next("registration", |it| match it {
                agent_message::Kind::Register(it) => Some(it),
                _ => None,
            })
            .await;
        let registered = link::Registered {
            agent_id: "agent-S0".into(),
            total_ping_timeout_ns: 75_000_000_000,
            total: register.total.clone(),
            reregistered: !register.agent_id.is_empty(),
        };
        self.send(master_message::Kind::Registered(registered))
            .await;
        register
    }

    pub async fn run(&mut self, task: Task<'_>) {
        let resources = Resources::parse("cpus:0.1;mem:32", "*").unwrap();
        let mut info = wire::TaskInfo {
            name: task.id.into(),
            task_id: wire::TaskId {
                value: task.id.into(),
            },
            agent_id: wire::AgentId {
                value: "agent-S0".into(),
            },
            resources: resources.to_wire(),
            command: Some(wire::CommandInfo {
                value: Some(task.command.into()),
                ..Default::default()
            }),
            ..Default::default()
        };
        (task.edit)(&mut info);
        let framework = wire::FrameworkInfo {
            user: String::new(),
            name: "tests".into(),
            ..Default::default()
        };
        self.command(log::command::Kind::RunTask(log::RunTask {
            framework_id: FRAMEWORK.into(),
            framework_info_payload: framework.encode_to_vec().into(),
            task_info_payload: info.encode_to_vec().into(),
            resources: resources.allocate(&"*".into()).to_wire(),
            container_id: format!("container-{}", task.id),
            task_id: task.id.into(),
            ..Default::default()
        }))
        .await;
    }

    pub async fn kill(&mut self, task: &str) {
        self.command(log::command::Kind::Kill(log::Kill {
            framework_id: FRAMEWORK.into(),
            task_id: task.into(),
            kill_policy_payload: wire::KillPolicy {
                grace_period: Some(wire::DurationInfo {
                    nanoseconds: 1_000_000_000,
                }),
            }
            .encode_to_vec()
            .into(),
        }))
        .await;
    }

    /// The next status of a task, acknowledged.
    pub async fn update(&mut self, task: &str) -> wire::TaskStatus {
        let status = self.unacknowledged(task).await;
        self.acknowledge(&status).await;
        status
    }

    /// The next status of a task.
    pub async fn unacknowledged(&mut self, task: &str) -> wire::TaskStatus {
        let what = format!("update of {task}");
        self.next(&what, |it| match it {
            agent_message::Kind::TaskUpdate(it) => {
                let status = wire::TaskStatus::decode(it.status_payload).unwrap();
                (status.task_id.value == task).then_some(status)
            }
            _ => None,
        })
        .await
    }

    pub async fn acknowledge(&self, status: &wire::TaskStatus) {
        self.send(master_message::Kind::AcknowledgeUpdate(
            link::AcknowledgeUpdate {
                framework_id: FRAMEWORK.into(),
                task_id: status.task_id.value.clone(),
                uuid: status.uuid.clone().expect("updates of agents have a uuid"),
            },
        ))
        .await;
    }

    /// Acknowledges statuses of a task until this state; the status.
    pub async fn until(&mut self, task: &str, state: wire::TaskState) -> wire::TaskStatus {
        loop {
            let status = self.update(task).await;
            if status.state() == state {
                return status;
            }
            assert!(
                !tepui_agent_machine::model::task::is_terminal(status.state()),
                "{task} should become {state:?}: {status:?}"
            );
        }
    }
}

/// The shim, built once, beside the agent's binary.
fn launcher_dir() -> PathBuf {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let agent = Path::new(env!("CARGO_BIN_EXE_tepui-agent"));
        let profile = agent.parent().expect("profile directory");
        let target = profile.parent().expect("target directory");
        let mut build = Command::new(std::env::var("CARGO").unwrap_or("cargo".into()));
        build
            .args(["build", "-q", "-p", "tepui-shim", "--target-dir"])
            .arg(target);
        if profile.file_name().is_some_and(|it| it == "release") {
            build.arg("--release");
        }
        assert!(
            build.status().expect("run cargo").success(),
            "build the shim"
        );
        profile.to_owned()
    })
    .clone()
}

/// The agent's binary, running.
pub struct Agent {
    child: Child,
    pub address: SocketAddr,
    work_dir: PathBuf,
    master: SocketAddr,
}

fn command(work_dir: &Path, master: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tepui-agent"));
    command
        .arg(format!("--work_dir={}", work_dir.display()))
        .arg(format!("--master={master}"))
        .arg(format!("--launcher_dir={}", launcher_dir().display()))
        .args(["--port=0", "--containerizers=process", "--no-switch_user"])
        .args(["--resources=cpus:4;mem:1024;disk:1000;ports:[31000-31009]"])
        .arg("--registration_backoff_factor=50ms");
    command
}

impl Agent {
    pub fn start(work_dir: &Path, master: &Master) -> Agent {
        // The port is part of what the agent is registered with: the next life keeps it.
        let kept = std::fs::read_to_string(work_dir.join("port-of-test"));
        let port = kept.ok().and_then(|it| it.parse::<u16>().ok());
        let mut command = command(work_dir, master.address);
        if let Some(port) = port {
            command.arg(format!("--advertise_port={port}"));
        }
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("the agent starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the agent's first line");
        let address = line
            .split_once("http://")
            .and_then(|(_, rest)| rest.split_whitespace().next())
            .and_then(|it| it.parse().ok())
            .unwrap_or_else(|| panic!("the agent said {line:?}"));
        let agent = Agent {
            child,
            address,
            work_dir: work_dir.to_owned(),
            master: master.address,
        };
        if port.is_none() {
            let _ = std::fs::write(work_dir.join("port-of-test"), address.port().to_string());
        }
        agent
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub fn crash(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is ours");
    }

    /// Sends a signal and waits for the end; the exit code.
    pub fn signal(&mut self, name: &str) -> Option<i32> {
        let status = Command::new("kill")
            .arg(name)
            .arg(self.pid().to_string())
            .status();
        assert!(status.is_ok_and(|it| it.success()));
        self.child.wait().expect("it is ours").code()
    }

    /// Status and body of a request.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, String) {
        let mut socket = TcpStream::connect(self.address).expect("the agent listens");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        socket.write_all(head.as_bytes()).expect("a request");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).expect("an answer");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|it| it.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (
            status.unwrap_or_else(|| panic!("{answer:?} is no answer")),
            body.to_owned(),
        )
    }

    /// JSON of an endpoint.
    pub fn get(&self, path: &str) -> serde_json::Value {
        let (status, body) = self.request("GET", path, &[], "");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }

    /// JSON of an operator's call.
    pub fn call(&self, body: &str) -> serde_json::Value {
        let json = [("Content-Type", "application/json")];
        let (status, answer) = self.request("POST", "/api/v1", &json, body);
        assert_eq!(status, 200, "{body}: {answer}");
        serde_json::from_str(&answer).unwrap_or_default()
    }
}

impl Drop for Agent {
    /// Ends what is left of the agent and its tasks.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut cleanup = command(&self.work_dir, self.master);
        let _ = cleanup
            .arg("--recover=cleanup")
            .stdout(Stdio::null())
            .status();
    }
}
