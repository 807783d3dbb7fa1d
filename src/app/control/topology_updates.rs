//! Endpoints that are found by name come and go.

use std::time::Instant;

use crate::app::control::discovery::LookupResult;
use crate::config::model::Config;
use crate::logic::director::Input;
use crate::logic::model::topology::Topology;

use super::ControlLoop;

impl ControlLoop {
    /// A configuration with the endpoints that its names are known to lead to.
    pub(super) fn with_discovered(&self, config: Config) -> Config {
        let mut discovery = self.admin_state.discovery.borrow_mut();
        let topology = discovery.configure(&config.dns, config.topology.clone(), Instant::now());
        Config { topology, ..config }
    }

    pub(super) fn on_lookup_result(&self, heard: LookupResult) {
        self.admin_state.discovery.borrow_mut().on_lookup_result(heard, Instant::now());
    }

    /// Obeys what names have led to, and looks up those that are due.
    pub(super) fn run_discovery(&mut self) {
        while let Ok(result) = self.lookup_results.1.try_recv() {
            self.on_lookup_result(result);
        }
        let now = Instant::now();
        self.admin_state.discovery.borrow_mut().start_due_lookups(&self.lookup_results.0, now);
        let rearranged = self.admin_state.discovery.borrow_mut().take_changed_topology(now);
        if let Some(topology) = rearranged {
            self.apply_topology(topology);
        }
    }

    fn apply_topology(&mut self, topology: Topology) {
        self.end_drill_now("the endpoints that a name leads to have changed");
        let config = Config { topology: topology.clone(), ..self.running_config.clone() };
        self.admin_state.shared.allow_descriptors(&config);
        self.apply_config_input(Input::UpdateEndpoints(topology), config);
        self.admin_state.director.borrow_mut().handle_timeout(Instant::now());
        self.apply_outputs();
    }
}
