//! A session over lost connections.

use super::{
    session::{Error, Session, Ticket},
    url::Url,
};
use std::time::Duration;

/// Between two rounds over all servers.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Well below a session's time-out, or a server that was away for a moment would cost the
/// session.
const LAST_RETRY: Duration = Duration::from_secs(2);

/// Keeps a session: each connection goes on with it as long as the servers know it.
pub(super) struct Keeper {
    url: Url,
    session_timeout: Duration,
    ticket: Ticket,
    /// The server that was tried last.
    position: usize,
    reported: bool,
}

impl Keeper {
    pub(super) fn new(url: Url, session_timeout: Duration) -> Keeper {
        Keeper {
            url,
            session_timeout,
            ticket: Ticket::default(),
            position: std::process::id() as usize,
            reported: false,
        }
    }

    /// A connection, however long it takes.
    pub(super) async fn connect(&mut self) -> Session {
        let mut retry = FIRST_RETRY;
        loop {
            for _ in 0..self.url.servers.len() {
                self.position = (self.position + 1) % self.url.servers.len();
                let server = self.url.servers[self.position].clone();
                match self.attempt(&server).await {
                    Ok(session) => {
                        self.ticket = session.ticket.clone();
                        self.reported = false;
                        tracing::info!(server, session = self.ticket.id, "connected to ZooKeeper");
                        return session;
                    }
                    Err(error) => self.report(&server, &error),
                }
            }
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    async fn attempt(&mut self, server: &str) -> Result<Session, Error> {
        let credentials = self.url.credentials.as_deref();
        let opened = Session::open(server, self.session_timeout, &self.ticket, credentials).await;
        match opened {
            Err(Error::Expired) if self.ticket.id != 0 => {
                tracing::info!(
                    session = self.ticket.id,
                    "the ZooKeeper session has expired"
                );
                self.ticket = Ticket::default();
                Session::open(server, self.session_timeout, &self.ticket, credentials).await
            }
            opened => opened,
        }
    }

    fn report(&mut self, server: &str, error: &Error) {
        // Once in a row is enough for the log.
        if !std::mem::replace(&mut self.reported, true) {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(server, %error, cause, "no connection to ZooKeeper: trying on");
        }
    }
}
