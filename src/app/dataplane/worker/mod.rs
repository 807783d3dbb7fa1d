//! A data-plane thread: its own runtime, listeners, view of the snapshot and upstream connections.
//! A request never leaves it.

mod accept;
mod client_connections;
mod connection_activity;
mod drill;
mod endpoint_pools;
mod handshake;
pub(in crate::app) mod http1;
mod http2;
mod state;
mod timer_queue;
mod tracked_stream;
mod view;

pub use state::Worker;
pub use timer_queue::{TimerHandle, TimerQueue};
pub use view::{PoolLocal, WorkerView};

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use super::shared::{InstanceShared, WorkerCommand};

/// Task polls between two looks at the sockets: measured best for short requests.
const EVENT_INTERVAL: u32 = 256;

/// How often idle connections and budgets are looked after.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(500);

/// Starts worker number `index`. It ends after [`Command::Drain`] when its last connection does.
///
/// # Errors
/// If no thread or runtime can be made.
pub fn spawn(
    index: usize,
    shared: Arc<InstanceShared>,
    commands: mpsc::UnboundedReceiver<WorkerCommand>,
) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .event_interval(EVENT_INTERVAL)
        .build()?;
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let local = LocalSet::new();
        local.block_on(&runtime, async move {
            let worker = Rc::new(Worker::new(shared, index));
            worker.run(commands).await;
            worker.record_sink.shut_down();
        });
    })
}

impl Worker {
    async fn run(self: &Rc<Self>, mut commands: mpsc::UnboundedReceiver<WorkerCommand>) {
        let mut listeners: HashMap<SocketAddr, CancellationToken> = HashMap::new();
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING_INTERVAL);
        let worker = Rc::clone(self);
        tokio::task::spawn_local(async move { worker.timers.run().await });
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(WorkerCommand::Listen(listener)) => {
                        let close = listeners.entry(listener.address);
                        let close = close.or_insert_with(|| self.drain_token.child_token()).clone();
                        // Its last look at the door is waited for.
                        self.tasks.spawn_local(accept::run_accept_loop(Rc::clone(self), listener, close));
                    }
                    Some(WorkerCommand::Unlisten(name)) => {
                        if let Some(close) = listeners.remove(&name) {
                            close.cancel();
                        }
                    }
                    Some(WorkerCommand::AbortEndpoint { endpoint, waiting }) => self.abort_endpoint(endpoint, waiting),
                    Some(WorkerCommand::EndpointDrained { endpoint, is_over }) => self.drain_endpoint(endpoint, is_over),
                    Some(WorkerCommand::AbortDrillEndpoint { drill, endpoint, waiting }) => {
                        self.abort_drill_requests(drill, endpoint, waiting);
                    }
                    Some(WorkerCommand::EndDrill { drill, is_interrupted }) => {
                        self.end_drill(drill, is_interrupted);
                    }
                    Some(WorkerCommand::StopAccepting) => break self.stop_accepting(),
                    Some(WorkerCommand::Drain) | None => break self.drain(),
                },
                _ = housekeeping.tick() => self.housekeep(),
            }
        }
        loop {
            tokio::select! {
                () = self.tasks.wait() => return,
                command = commands.recv() => match command {
                    // A request that waits for a dead endpoint is rescued on the way out too.
                    Some(WorkerCommand::AbortEndpoint { endpoint, waiting }) => self.abort_endpoint(endpoint, waiting),
                    Some(WorkerCommand::EndpointDrained { endpoint, is_over }) => self.drain_endpoint(endpoint, is_over),
                    Some(WorkerCommand::EndDrill { drill, is_interrupted }) => {
                        self.end_drill(drill, is_interrupted);
                    }
                    Some(WorkerCommand::Drain) => self.drain(),
                    Some(_) => {}
                    // Control has gone: the deadline is over.
                    None => return,
                },
                _ = housekeeping.tick() => self.housekeep(),
            }
        }
    }
}
