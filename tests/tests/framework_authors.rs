//! What a framework author gets: the client crate against real processes, over both
//! protocols, through the death of the master.

use anyhow::{Context, Result, bail, ensure};
use std::time::Duration;
use tepui_scheduler_api::{Error, Event, Events, Options, Session, Transport, task, v1};
use tepui_tests::cluster::Cluster;

const AGENT: &[&str] = &[
    "--containerizers=process",
    "--resources=cpus:4;mem:2048;disk:4096;ports:[31000-31099]",
];

/// The next event for which `wanted` yields something.
async fn wait<T>(
    events: &mut Events,
    what: &str,
    mut wanted: impl FnMut(Event) -> Option<T>,
) -> Result<T> {
    let search = async {
        while let Some(event) = events.next().await {
            if let Some(found) = wanted(event?) {
                return Ok(found);
            }
        }
        bail!("the session ended before {what}")
    };
    tokio::time::timeout(Duration::from_secs(60), search)
        .await
        .with_context(|| format!("waited in vain for {what}"))?
}

fn run<F: Future<Output = Result<()>>>(future: F) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(future)
}

fn survives_the_master(transport: Transport) -> Result<()> {
    let mut cluster = Cluster::start(&[])?;
    cluster.add_agent(AGENT)?;
    run(async {
        let mut info = task::framework("root", "author");
        info.failover_timeout = Some(600.0);
        let master = cluster.master.address.to_string();
        let options = Options::new([master], info).transport(transport);
        let Session { driver, mut events } = Session::start(options)?;
        let id = wait(&mut events, "SUBSCRIBED", |event| match event {
            Event::Subscribed {
                framework_id,
                again,
                ..
            } if !again => Some(framework_id),
            _ => None,
        })
        .await?;
        let offer = wait(&mut events, "an offer", |event| match event {
            Event::Offers(offers) => offers.into_iter().next(),
            _ => None,
        })
        .await?;
        let sleeper = task::task("sleeper", &offer, 0.5, 64.0, task::shell("sleep 1000"));
        driver.launch(&offer, vec![sleeper], None).await?;
        let state = |wanted: v1::TaskState| {
            move |event| match event {
                Event::Update(status) if status.state() == wanted => Some(status),
                _ => None,
            }
        };
        wait(&mut events, "RUNNING", state(v1::TaskState::TaskRunning)).await?;

        cluster.master.kill()?;
        wait(&mut events, "the break", |event| {
            matches!(event, Event::Disconnected { .. }).then_some(())
        })
        .await?;
        cluster.restart_master()?;
        let again = wait(
            &mut events,
            "the second subscription",
            |event| match event {
                Event::Subscribed {
                    framework_id,
                    again: true,
                    ..
                } => Some(framework_id),
                _ => None,
            },
        )
        .await?;
        ensure!(
            again == id,
            "another framework id: {again:?} instead of {id:?}"
        );
        // The session reconciles by itself. The update may come once more, too, when its
        // acknowledgement died with the master.
        let status = wait(&mut events, "reconciliation", |event| match event {
            Event::Update(status) if status.reason() == v1::task_status::Reason::Reconciliation => {
                Some(status)
            }
            _ => None,
        })
        .await?;
        ensure!(status.state() == v1::TaskState::TaskRunning, "{status:?}");
        driver.kill(status.task_id.clone()).await?;
        wait(&mut events, "KILLED", state(v1::TaskState::TaskKilled)).await?;
        driver.teardown().await?;
        // What was on its way before the teardown may still come; then the session ends.
        let rest = async {
            while let Some(event) = events.next().await {
                event?;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(Duration::from_secs(60), rest)
            .await
            .context("the session ends with the teardown")??;
        Ok(())
    })
}

#[test]
fn a_session_over_grpc_survives_the_master() -> Result<()> {
    survives_the_master(Transport::Grpc)
}

#[test]
fn a_session_over_http_survives_the_master() -> Result<()> {
    survives_the_master(Transport::Http)
}

#[test]
fn refusals_end_the_session_with_the_masters_words() -> Result<()> {
    let cluster = Cluster::start(&[])?;
    run(async {
        for transport in [Transport::Grpc, Transport::Http] {
            let mut info = task::framework("root", "wrong");
            info.roles = vec!["not a role".into()];
            info.capabilities = vec![v1::framework_info::Capability {
                r#type: Some(v1::framework_info::capability::Type::MultiRole as i32),
            }];
            let master = cluster.master.address.to_string();
            let options = Options::new([master], info).transport(transport);
            let Session { mut events, .. } = Session::start(options)?;
            match events.next().await {
                Some(Err(Error::Refused(message))) => {
                    ensure!(message.contains("role"), "{message}")
                }
                other => bail!("{transport:?}: {other:?}"),
            }
            ensure!(events.next().await.is_none());
        }
        Ok(())
    })
}

#[test]
fn a_session_without_a_master_keeps_trying() -> Result<()> {
    let port = tepui_tests::cluster::free_port()?;
    run(async move {
        let options = Options::new(
            [format!("127.0.0.1:{port}")],
            task::framework("root", "early"),
        );
        let Session { mut events, driver } = Session::start(options)?;
        let nothing = tokio::time::timeout(Duration::from_millis(500), events.next()).await;
        ensure!(nothing.is_err(), "{nothing:?}");
        drop(driver);
        ensure!(matches!(
            Session::start(Options::new(["nonsense"], task::framework("", ""))),
            Err(Error::InvalidMaster(_))
        ));
        Ok(())
    })
}
