//! How control ends: stopping, or leaving the place to another process.

use std::io;
use std::time::{Duration, Instant};

use crate::app::api::FailedUpgradeJson;
use crate::app::discovery::memory;
use crate::app::observe;
use crate::app::orders::keeper;
use crate::app::shared::Command;
use crate::app::upgrade::{Estate, Step, Successor};
use crate::config::model::Shutdown;

use super::{Control, Order, Phase};

/// When the time of a process that was taken over from is nearly over, clients that still ask for
/// nothing are let go; that long before.
const LAST_CALL: Duration = Duration::from_secs(1);

/// Why a part of the way out is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Its time is up, or nothing is left to wait for.
    Over,
    /// An order came: the rest is skipped.
    Ordered(Order),
}

impl Control {
    /// Readiness fails, the lame duck still serves, then workers drain until the deadline.
    pub(super) async fn stop(&mut self) {
        self.end_drill("the process is on its way out");
        self.abandon_upgrade();
        self.notifier.stopping();
        let Shutdown { lame_duck, drain, .. } = self.running.shutdown.clone();
        self.board.phase.set(Phase::Stopping);
        tracing::info!(?lame_duck, ?drain, "stopping");
        self.see_open();
        let lame = self.while_serving(Instant::now() + lame_duck, false).await;
        if lame == End::Over {
            self.doors.drain();
            self.while_serving(Instant::now() + drain, true).await;
        }
    }

    /// Another process serves. What is under way here ends, and whoever asks once more is told to
    /// connect anew next time; nobody is turned away before the time is over.
    pub(super) async fn leave(&mut self) {
        self.end_drill("another process has taken over");
        let Shutdown { lame_duck, drain, .. } = self.running.shutdown.clone();
        self.board.phase.set(Phase::Stopping);
        self.board.left.cancel();
        // What is open goes on in the other process.
        self.see_open();
        self.board.ledger.release();
        self.board.discovery.borrow_mut().forget_memory();
        self.doors.leave();
        let end = Instant::now() + lame_duck + drain;
        let last_call = end - LAST_CALL.min(drain / 2);
        if self.while_serving(last_call, true).await == End::Ordered(Order::Kill) {
            return;
        }
        self.doors.tell(|| Command::Drain);
        self.while_serving(end, true).await;
        self.board.visits.close();
        // The operator may have asked just before.
        let _ = tokio::time::timeout(LAST_CALL, self.board.visits.wait()).await;
    }

    /// Goes on with health until `deadline`, an order to end, or (if asked) the last worker's end:
    /// running requests may still need a rescue.
    async fn while_serving(&mut self, deadline: Instant, until_drained: bool) -> End {
        loop {
            self.turn();
            let due = self.due();
            let wake = due.map_or(deadline, |due| deadline.min(due));
            tokio::select! {
                biased;
                order = self.inlets.orders.recv() => match order {
                    Some(Order::Upgrade) => tracing::warn!("on the way out: no upgrade any more"),
                    order => return End::Ordered(order.unwrap_or(Order::Kill)),
                },
                () = self.doors.all_closed(), if until_drained => return End::Over,
                Some(probed) = self.probes.1.recv() => self.probed(probed),
                Some(report) = self.inlets.reports.recv() => self.reported(report),
                Some(heard) = self.heard.1.recv() => self.heard(heard),
                () = tokio::time::sleep_until(wake.into()) => {
                    if Instant::now() >= deadline {
                        return End::Over;
                    }
                }
            }
        }
    }

    /// Starts another process that is to take over.
    pub(super) fn upgrade(&mut self) {
        if self.successor.is_some() {
            tracing::warn!("an upgrade is under way already");
            return;
        }
        let Some(executable) = self.executable.clone() else { return };
        self.end_drill("another process is to take over");
        if std::process::id() == 1 {
            let why = "this is process 1, and all others end with it: start another container";
            return self.upgrade_failed(why.to_owned());
        }
        let within = self.running.shutdown.upgrade_timeout;
        tracing::info!(executable = %executable.path.display(), "upgrade");
        match Successor::start(executable, within, self.steps.0.clone()) {
            Ok(successor) => {
                self.board.is_succeeded.set(true);
                self.successor = Some(successor);
            }
            Err(error) => self.upgrade_failed(error.to_string()),
        }
    }

    /// Goes on with an upgrade; whether the other process serves now.
    pub(super) fn step(&mut self, step: Step) -> bool {
        match step {
            Step::Asks(answer) => {
                let _ = answer.send(self.estate());
                false
            }
            Step::Ended(Ok(pid)) => {
                tracing::info!(pid, "another process has taken over");
                true
            }
            Step::Ended(Err(why)) => {
                self.abandon_upgrade();
                self.upgrade_failed(why);
                false
            }
        }
    }

    fn estate(&self) -> io::Result<Estate> {
        Ok(Estate {
            sockets: self.doors.copies()?,
            legacy: self.board.director.borrow().legacy(),
            names: memory::notes(&self.board.discovery.borrow().remember(), &self.board.clock),
            upgrades: self.board.process.borrow().upgrades,
            orders: keeper::kept(self.board.director.borrow().orders(), &self.board.clock),
            secret: self.board.shared.secret.get().cloned(),
        })
    }

    fn upgrade_failed(&self, why: String) {
        self.board.is_succeeded.set(false);
        observe::upgraded(false);
        self.notifier.status("serving; an upgrade has failed");
        tracing::error!("upgrade failed, this process goes on: {why}");
        let at = self.board.clock.text(Instant::now());
        self.board.process.borrow_mut().failed_upgrade = Some(FailedUpgradeJson { at, why });
    }

    /// Ends a process that was to take over.
    pub(super) fn abandon_upgrade(&mut self) {
        if let Some(successor) = self.successor.take() {
            // Whoever waits for an answer shall not get one.
            while self.steps.1.try_recv().is_ok() {}
            self.steps.1.close();
            self.steps = tokio::sync::mpsc::unbounded_channel();
            successor.abandon();
        }
    }
}
