//! Wake-ups between the processes that share a PostgreSQL, over LISTEN and NOTIFY.

use async_trait::async_trait;
use futures::StreamExt as _;
use gust_ports::{MetastoreError, Wake, WakeStream, Wakeups};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, postgres::PgListener};
use tokio::{sync::broadcast, task::JoinHandle};
use tokio_stream::wrappers::BroadcastStream;
use uuid::Uuid;

use crate::{dialect::Dialect, error::translate};

/// The channel of all of a database's wake-ups.
const CHANNEL: &str = "gust_wake";

/// PostgreSQL takes payloads shorter than 8000 bytes.
const MAX_PAYLOAD_BYTES: usize = 7999;

/// How many wake-ups a slow listener may be behind before it loses the oldest.
const BACKLOG: usize = 4096;

/// What travels: the wake-up, and who sent it, who has heard it already.
#[derive(Serialize, Deserialize)]
struct Notice {
    from: Uuid,
    wake: Wake,
}

/// Wake-ups over LISTEN and NOTIFY: one connection listens, and connects again when it is lost. The sender's own
/// listeners hear at once, without the way to the database and back.
pub struct PgWakeups {
    pool: PgPool,
    id: Uuid,
    heard: broadcast::Sender<Wake>,
    listening: JoinHandle<()>,
}

impl std::fmt::Debug for PgWakeups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgWakeups").field("id", &self.id).finish_non_exhaustive()
    }
}

impl PgWakeups {
    /// Starts to listen.
    pub(crate) async fn start(pool: PgPool) -> Result<Self, MetastoreError> {
        let failed = |error| translate(Dialect::Postgres, error);
        let mut listener = PgListener::connect_with(&pool).await.map_err(failed)?;
        listener.listen(CHANNEL).await.map_err(failed)?;
        let id = Uuid::new_v4();
        let (heard, _) = broadcast::channel(BACKLOG);
        let listening = tokio::spawn(listen(listener, id, heard.clone()));
        Ok(Self { pool, id, heard, listening })
    }
}

impl Drop for PgWakeups {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Hands on what others say. A lost connection has lost wake-ups too, so that everybody is told to look.
async fn listen(mut listener: PgListener, id: Uuid, heard: broadcast::Sender<Wake>) {
    loop {
        // Nobody listening is no error.
        match listener.try_recv().await {
            Ok(Some(notification)) => match serde_json::from_str::<Notice>(notification.payload()) {
                Ok(notice) if notice.from == id => {}
                Ok(notice) => drop(heard.send(notice.wake)),
                Err(error) => tracing::debug!(%error, "a wake-up of another version was not understood"),
            },
            Ok(None) => {
                tracing::warn!("the connection that listens for wake-ups was lost; connecting again");
                for wake in [Wake::Admission, Wake::Queued, Wake::Trigger] {
                    drop(heard.send(wake));
                }
            }
            Err(sqlx::Error::PoolClosed) => return,
            Err(error) => {
                tracing::warn!(%error, "cannot listen for wake-ups; trying again");
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
        }
    }
}

/// Between two attempts to connect again.
const RECONNECT_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

#[async_trait]
impl Wakeups for PgWakeups {
    async fn wake(&self, wake: Wake) {
        drop(self.heard.send(wake.clone()));
        let notice = Notice { from: self.id, wake };
        let payload = match serde_json::to_string(&notice) {
            Ok(payload) if payload.len() <= MAX_PAYLOAD_BYTES => payload,
            Ok(payload) => {
                tracing::warn!(bytes = payload.len(), "a wake-up is too long to be sent to other processes");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "a wake-up has no JSON form");
                return;
            }
        };
        let sent =
            sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(payload).execute(&self.pool).await;
        if let Err(error) = sent {
            tracing::warn!(%error, "other processes were not woken; they look again by themselves");
        }
    }

    fn listen(&self) -> WakeStream {
        let stream = BroadcastStream::new(self.heard.subscribe());
        Box::pin(stream.filter_map(|heard| async move { heard.ok() }))
    }
}
