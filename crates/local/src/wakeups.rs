use async_trait::async_trait;
use futures::StreamExt as _;
use gust_ports::{Wake, WakeStream, Wakeups};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

/// How many wake-ups a slow listener may lag behind before it loses the oldest.
const CAPACITY: usize = 4096;

/// Wake-ups within one process.
#[derive(Debug, Clone)]
pub struct ChannelWakeups {
    sender: broadcast::Sender<Wake>,
}

impl Default for ChannelWakeups {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(CAPACITY) }
    }
}

#[async_trait]
impl Wakeups for ChannelWakeups {
    async fn wake(&self, wake: Wake) {
        // An error says that nobody listens, which is nobody's fault.
        let _ = self.sender.send(wake);
    }

    fn listen(&self) -> WakeStream {
        // What a lagging listener lost, its own periodic look finds.
        Box::pin(BroadcastStream::new(self.sender.subscribe()).filter_map(|wake| async move { wake.ok() }))
    }
}
