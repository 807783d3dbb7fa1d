//! How control ends: by a shutdown, or after a handover to another process.

use std::io;
use std::time::{Duration, Instant};

use crate::app::control::discovery::name_cache;
use crate::app::control::orders::order_store;
use crate::app::dataplane::shared::WorkerCommand;
use crate::app::ops::api::FailedUpgradeJson;
use crate::app::ops::event_log;
use crate::app::runtime::upgrade::{HandoverState, Successor, UpgradeEvent};
use crate::config::model::ShutdownConfig;

use super::admin_state::LifecyclePhase;
use super::{ControlLoop, ProcessCommand, TaskResults};

/// A predecessor closes idle client connections this long before its drain deadline.
const FORCED_CLOSE_LEAD_TIME: Duration = Duration::from_secs(1);

/// Why a wait of the shutdown ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ShutdownWait {
    /// The deadline passed, or every worker has ended.
    Elapsed,
    /// A command arrived: the rest of the wait is skipped.
    Commanded(ProcessCommand),
}

impl ControlLoop {
    /// Fails readiness, serves on for the lame-duck period, then drains workers until the deadline.
    pub(super) async fn shut_down(&mut self) {
        self.end_fault_injection("the process is shutting down");
        self.cancel_upgrade();
        self.notifier.notify_stopping();
        let ShutdownConfig { lame_duck, drain, .. } = self.running_config.shutdown.clone();
        self.admin_state.phase.set(LifecyclePhase::Stopping);
        tracing::info!(?lame_duck, ?drain, "stopping");
        self.update_open_incidents();
        let wait = self.serve_until(Instant::now() + lame_duck, false).await;
        if wait == ShutdownWait::Elapsed {
            self.listeners.drain();
            self.serve_until(Instant::now() + drain, true).await;
        }
    }

    /// Leaves after another process has begun to serve. Running requests end here; a further
    /// request on a connection is answered with `connection: close`. No client is refused before
    /// the deadline.
    pub(super) async fn leave_after_handover(&mut self) {
        self.end_fault_injection("another process has taken over");
        let ShutdownConfig { lame_duck, drain, .. } = self.running_config.shutdown.clone();
        self.admin_state.phase.set(LifecyclePhase::Stopping);
        self.admin_state.handed_over.cancel();
        // The other process continues the open incidents.
        self.update_open_incidents();
        self.admin_state.ledger.release_file();
        self.admin_state.discovery.borrow_mut().stop_saving();
        self.listeners.stop_accepting();
        let end = Instant::now() + lame_duck + drain;
        let forced_close = end - FORCED_CLOSE_LEAD_TIME.min(drain / 2);
        if self.serve_until(forced_close, true).await
            == ShutdownWait::Commanded(ProcessCommand::Kill)
        {
            return;
        }
        self.listeners.broadcast(|| WorkerCommand::Drain);
        self.serve_until(end, true).await;
        self.admin_state.admin_connections.close();
        // An admin request may have arrived just before.
        let _ =
            tokio::time::timeout(FORCED_CLOSE_LEAD_TIME, self.admin_state.admin_connections.wait())
                .await;
    }

    /// Goes on with probes and verdicts until `deadline`, a command, or (if `until_drained`) the
    /// end of the last worker: running requests may still need a rescue.
    async fn serve_until(&mut self, deadline: Instant, until_drained: bool) -> ShutdownWait {
        loop {
            self.run_turn();
            let due = self.next_deadline();
            let wake = due.map_or(deadline, |due| deadline.min(due));
            tokio::select! {
                biased;
                command = self.inputs.commands.recv() => match command {
                    Some(ProcessCommand::Upgrade) => tracing::warn!("upgrade ignored: the process is shutting down"),
                    command => return ShutdownWait::Commanded(command.unwrap_or(ProcessCommand::Kill)),
                },
                () = self.listeners.wait_closed(), if until_drained => return ShutdownWait::Elapsed,
                Some(probed) = self.probe_results.receiver.recv() => self.on_probe_result(probed),
                Some(report) = self.inputs.reports.recv() => self.on_worker_report(report),
                Some(result) = self.lookup_results.receiver.recv() => self.on_lookup_result(result),
                () = tokio::time::sleep_until(wake.into()) => {
                    if Instant::now() >= deadline {
                        return ShutdownWait::Elapsed;
                    }
                }
            }
        }
    }

    /// Starts the successor process of an upgrade.
    pub(super) fn start_upgrade(&mut self) {
        if self.successor.is_some() {
            tracing::warn!("an upgrade is under way already");
            return;
        }
        let Some(executable) = self.executable.clone() else { return };
        self.end_fault_injection("another process is to take over");
        if std::process::id() == 1 {
            let why = "this is process 1, and all others end with it: start another container";
            return self.record_upgrade_failure(why.to_owned());
        }
        let within = self.running_config.shutdown.upgrade_timeout;
        tracing::info!(executable = %executable.path.display(), "upgrade");
        match Successor::start(executable, within, self.upgrade_events.sender.clone()) {
            Ok(successor) => {
                self.admin_state.is_handing_over.set(true);
                self.successor = Some(successor);
            }
            Err(error) => self.record_upgrade_failure(error.to_string()),
        }
    }

    /// Continues an upgrade. Returns whether the other process serves now.
    pub(super) fn on_upgrade_event(&mut self, event: UpgradeEvent) -> bool {
        match event {
            UpgradeEvent::StateRequested(answer) => {
                let _ = answer.send(self.handover_state());
                false
            }
            UpgradeEvent::Ended(Ok(pid)) => {
                tracing::info!(pid, "another process has taken over");
                true
            }
            UpgradeEvent::Ended(Err(why)) => {
                self.cancel_upgrade();
                self.record_upgrade_failure(why);
                false
            }
        }
    }

    fn handover_state(&self) -> io::Result<HandoverState> {
        Ok(HandoverState {
            sockets: self.listeners.duplicate_sockets()?,
            health_export: self.admin_state.director().export_health(),
            names: name_cache::to_stored_answers(
                &self.admin_state.discovery.borrow().remembered_answers(),
                &self.admin_state.clock,
            ),
            upgrades: self.admin_state.process.borrow().upgrades,
            orders: order_store::to_stored_orders(
                self.admin_state.director().orders(),
                &self.admin_state.clock,
            ),
            cookie_secret: self.admin_state.shared.cookie_secret.get().cloned(),
        })
    }

    fn record_upgrade_failure(&self, why: String) {
        self.admin_state.is_handing_over.set(false);
        event_log::record_upgrade(false);
        self.notifier.notify_status("serving; an upgrade has failed");
        tracing::error!("upgrade failed, this process continues: {why}");
        let at = self.admin_state.clock.to_rfc3339(Instant::now());
        self.admin_state.process.borrow_mut().failed_upgrade = Some(FailedUpgradeJson { at, why });
    }

    /// Ends the successor process, if an upgrade is in progress.
    pub(super) fn cancel_upgrade(&mut self) {
        if let Some(successor) = self.successor.take() {
            // A request for the state that is still queued must stay unanswered.
            while self.upgrade_events.receiver.try_recv().is_ok() {}
            self.upgrade_events.receiver.close();
            self.upgrade_events = TaskResults::default();
            successor.cancel();
        }
    }
}
