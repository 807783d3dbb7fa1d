//! Applies the first configuration and every reloaded one; a refused one changes nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use crate::app::dataplane::http_policy::HttpPolicy;
use crate::app::ops::admin::access::AdminAccess;
use crate::app::ops::api::RefusedJson;
use crate::app::ops::event_log;
use crate::app::ops::ledger::LedgerConfig;
use crate::config::model::Config;
use crate::config::{LoadError, LoadedConfig};
use crate::logic::director::Input;
use crate::logic::routing::RouteTable;

use super::ControlLoop;
use super::reload::{PreparedConfig, ReloadAttempt};

impl ControlLoop {
    /// Applies a configuration that has passed validation.
    pub(super) fn apply_config(&mut self, config: Config) {
        let config = self.with_discovered(config);
        let names = config.topology.pools.iter().map(|pool| &*pool.name);
        let routes = Arc::new(RouteTable::compile(&config.routes, names));
        self.admin_state.shared.http_policy.store(Arc::new(HttpPolicy::from_config(&config)));
        self.admin_state.shared.prepare(&config.routes);
        self.admin_state.shared.prepare_cookie_secret(&config);
        self.admin_state.shared.allow_descriptors(&config);
        self.admin_state.shared.access_log.set_target(&config.access_log.target);
        #[cfg(feature = "otlp")]
        crate::app::ops::otlp::set_target(&self.admin_state.shared.traces, config.otlp.as_ref());
        let input = Input::Configure { topology: config.topology.clone(), routes };
        self.apply_config_input(input, config);
        self.schedule_practice();
    }

    /// Passes `input` to the director, drops connections of probes that are gone, and informs the
    /// ledger.
    pub(super) fn apply_config_input(&mut self, input: Input, config: Config) {
        let mut director = self.admin_state.director_mut();
        director.handle(input, Instant::now());
        let endpoints = director.endpoints();
        let present: HashSet<_> = endpoints.iter().map(|status| status.subject.endpoint).collect();
        self.probe_connections.retain(|key, _| present.contains(&key.endpoint));
        drop(director);
        let generation = self.ledger_config.generation + 1;
        self.ledger_config = Arc::new(LedgerConfig::from_config(generation, &config));
        self.admin_state.ledger.configure(&self.ledger_config);
        self.running_config = config;
    }

    /// Applies what was loaded, or keeps the reason for the refusal and changes nothing else.
    pub(super) fn on_reload(&mut self, attempt: ReloadAttempt) {
        let refused = match attempt.result {
            Ok(PreparedConfig { loaded, listeners, admin_access }) => {
                match self.listeners.reconcile(listeners) {
                    Ok(()) => return self.apply_loaded(loaded, admin_access),
                    Err(error) => RefusedJson {
                        at: String::new(),
                        report: error.to_string(),
                        errors: serde_json::json!([{ "message": error.to_string() }]),
                    },
                }
            }
            Err(LoadError::Invalid(report)) => RefusedJson {
                at: String::new(),
                report: report.render(false),
                errors: serde_json::to_value(&report.diagnostics).unwrap_or_default(),
            },
            Err(error @ LoadError::Unreadable { .. }) => RefusedJson {
                at: String::new(),
                report: error.to_string(),
                errors: serde_json::json!([{ "message": error.to_string() }]),
            },
        };
        event_log::record_reload(false);
        self.notifier.notify_reloaded(false);
        tracing::error!("configuration refused, the old one stays:\n{}", refused.report);
        let at = self.admin_state.clock.to_rfc3339(Instant::now());
        self.admin_state.config.borrow_mut().refused = Some(RefusedJson { at, ..refused });
    }

    fn apply_loaded(&mut self, loaded: LoadedConfig, admin_access: AdminAccess) {
        self.end_fault_injection("a new configuration was loaded");
        let running = &self.running_config;
        let restart = keys_needing_restart(running, &loaded.config);
        // Keys that need a restart keep their running value, so the next reload compares with it.
        // TLS and token fit the address that they were validated with.
        let admin = if running.admin.address == loaded.config.admin.address {
            self.admin_state.admin_access.replace(admin_access);
            loaded.config.admin.clone()
        } else {
            running.admin.clone()
        };
        let (workers, status, state_dir) =
            (running.workers, running.status, running.state_dir.clone());
        self.apply_config(Config { workers, admin, status, state_dir, ..loaded.config });
        self.run_turn();
        event_log::record_reload(true);
        self.notifier.notify_reloaded(true);
        let mut status = self.admin_state.config.borrow_mut();
        status.generation += 1;
        status.loaded_at = self.admin_state.clock.to_rfc3339(Instant::now());
        status.refused = None;
        tracing::info!(generation = status.generation, "configuration loaded");
        if !restart.is_empty() {
            tracing::warn!(keys = ?restart, "these keys take effect at the next start or upgrade");
        }
        status.needs_restart = restart;
    }
}

/// Keys in which `new` differs from `running` and which take effect at a start only.
fn keys_needing_restart(running: &Config, new: &Config) -> Vec<&'static str> {
    let differing = [
        ("workers", running.workers != new.workers),
        ("admin.address", running.admin.address != new.admin.address),
        ("status.address", running.status != new.status),
        ("state_dir", running.state_dir != new.state_dir),
    ];
    differing.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}
