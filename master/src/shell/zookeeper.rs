//! `--zk`: the leader publishes itself where old clients look for it.

use crate::{config::ZooKeeper, shell::door::App};
use std::sync::Arc;
use tepui_server::{
    proto::json,
    zookeeper::{self, Leader},
};
use tokio::sync::watch;

/// Publishes this master while it leads; returns when it is stopped, after it was taken back.
/// That ZooKeeper is away disturbs nobody else.
pub(crate) async fn run(app: Arc<App>, settings: ZooKeeper) {
    let (wanted, leader) = watch::channel(None);
    let publishing = tokio::spawn(zookeeper::publish(
        settings.url,
        settings.session_timeout,
        leader,
    ));
    let mut born = app.shared.born();
    loop {
        let fence = born.borrow_and_update().clone();
        let leader = fence.map(|fence| Leader {
            cluster_id: fence.cluster_id,
            incarnation: fence.incarnation,
            term: fence.term,
            info: json::encode(&app.master_info()).into(),
        });
        wanted.send_replace(leader);
        let alive = tokio::select! {
            changed = born.changed() => changed.is_ok(),
            () = app.stop.stopped() => false,
        };
        if !alive {
            break;
        }
    }
    drop(wanted);
    // A panic was logged; there is nothing left to take back then.
    let _ = publishing.await;
}
