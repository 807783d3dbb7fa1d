//! Worker threads: one runtime each, with its own listeners, view and upstream connections.
//!
//! A request never leaves its worker.

mod accept;
mod client_connections;
mod connection_activity;
mod endpoint_pools;
mod handshake;
pub(in crate::app) mod http1;
mod http2;
mod state;
mod tags;
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

/// Task polls between two polls of the sockets; measured best for short requests.
const EVENT_INTERVAL: u32 = 256;

/// Interval of timeouts for idle connections and of the decay of budgets.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(500);

/// Starts worker number `index`. It exits after [`WorkerCommand::Drain`] with its last connection.
///
/// # Errors
/// If the thread or its runtime cannot be created.
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
                        // Tracked: a drain waits until the loop has accepted what the kernel
                        // completed.
                        self.tasks.spawn_local(accept::run_accept_loop(Rc::clone(self), listener, close));
                    }
                    Some(WorkerCommand::Unlisten(name)) => {
                        if let Some(close) = listeners.remove(&name) {
                            close.cancel();
                        }
                    }
                    Some(WorkerCommand::AbortEndpoint(abort)) => self.abort_endpoint(abort),
                    Some(WorkerCommand::EndpointDrained { endpoint, is_over }) => self.drain_endpoint(endpoint, is_over),
                    Some(WorkerCommand::EndFaultInjection(end)) => self.end_fault_injection(end),
                    Some(WorkerCommand::StartFaultInjection(start)) => {
                        self.start_fault_injection(start);
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
                    // Requests that wait for a failed endpoint are retried during a drain too.
                    Some(WorkerCommand::AbortEndpoint(abort)) => self.abort_endpoint(abort),
                    Some(WorkerCommand::EndpointDrained { endpoint, is_over }) => self.drain_endpoint(endpoint, is_over),
                    Some(WorkerCommand::EndFaultInjection(end)) => self.end_fault_injection(end),
                    Some(WorkerCommand::Drain) => self.drain(),
                    Some(_) => {}
                    // Control has exited: the drain deadline has passed.
                    None => return,
                },
                _ = housekeeping.tick() => self.housekeep(),
            }
        }
    }
}
