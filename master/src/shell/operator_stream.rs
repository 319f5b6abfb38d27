//! SUBSCRIBE of operators: the state, a heartbeat, and every change from then on.

use crate::{
    endpoints::state,
    shell::{
        door::{App, Failure},
        operator_events::{Encoded, Item, of},
        reads::disk,
        view_thread::ViewMessage,
    },
};
use axum::{body::Body, response::Response};
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, header};
use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tepui_master_machine::model::wire::master::event;
use tepui_server::proto::media::ContentType;
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

/// Between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events that may wait for a slow reader before it is dropped.
const QUEUE: usize = 4096;

/// Counts an open subscription.
struct Counted(Arc<App>);

impl Counted {
    fn new(app: &Arc<App>) -> Counted {
        app.subscribers.fetch_add(1, Ordering::Relaxed);
        Counted(app.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.subscribers.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Watching {
    items: mpsc::Receiver<Item>,
    heartbeats: Interval,
    /// The heartbeat right behind the state.
    greet: bool,
    _counted: Counted,
}

/// The events of one subscription.
pub(crate) fn events(app: &Arc<App>) -> impl Stream<Item = Arc<Encoded>> + Send + use<> {
    let (sink, items) = mpsc::channel(QUEUE);
    app.view.send(ViewMessage::Subscribe(sink));
    let mut heartbeats = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watching = Watching {
        items,
        heartbeats,
        greet: false,
        _counted: Counted::new(app),
    };
    futures_util::stream::unfold(watching, |mut it| async move {
        let heartbeat = || Arc::new(Encoded::new(of(event::Type::Heartbeat)));
        if std::mem::take(&mut it.greet) {
            return Some((heartbeat(), it));
        }
        let item = tokio::select! {
            item = it.items.recv() => item?,
            _ = it.heartbeats.tick() => return Some((heartbeat(), it)),
        };
        match item {
            Item::Event(event) => Some((event, it)),
            Item::Begin(view) => {
                it.greet = true;
                let subscribed = disk(move || {
                    let mut event = of(event::Type::Subscribed);
                    event.subscribed = Some(event::Subscribed {
                        get_state: Some(state::get_state(&view)),
                        heartbeat_interval_seconds: Some(HEARTBEAT.as_secs_f64()),
                    });
                    Arc::new(Encoded::new(event))
                })
                .await;
                Some((subscribed, it))
            }
        }
    })
}

/// The answer of a subscription over HTTP.
pub(crate) fn http(app: &Arc<App>, accept: ContentType) -> Result<Response, Failure> {
    let records = events(app).map(move |event| Ok::<_, Infallible>(event.record(accept)));
    let mut response = Response::new(Body::from_stream(records));
    let content_type = HeaderValue::from_static(accept.as_str());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}
