use async_trait::async_trait;
use futures::stream;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::{Wake, WakeStream, Wakeups};

/// Wake-ups within one process.
#[derive(Debug)]
pub struct MemoryWakeups {
    sender: broadcast::Sender<Wake>,
}

impl MemoryWakeups {
    /// Wake-ups of which a listener may lag behind by `capacity` before it loses the oldest.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { sender: broadcast::channel(capacity.max(1)).0 }
    }
}

#[async_trait]
impl Wakeups for MemoryWakeups {
    async fn wake(&self, wake: Wake) {
        // Nobody listening is no failure.
        let _ = self.sender.send(wake);
    }

    fn listen(&self) -> WakeStream {
        Box::pin(stream::unfold(self.sender.subscribe(), |mut receiver| async move {
            loop {
                match receiver.recv().await {
                    Ok(wake) => return Some((wake, receiver)),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        }))
    }
}
