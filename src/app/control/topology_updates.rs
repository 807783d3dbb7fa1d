//! Applies changes of the endpoints that DNS names resolve to.

use std::time::Instant;

use crate::app::control::discovery::LookupResult;
use crate::config::model::Config;
use crate::logic::director::Input;
use crate::logic::model::topology::Topology;

use super::ControlLoop;

impl ControlLoop {
    /// Adds to `config` the endpoints that its DNS names resolve to as far as known.
    pub(super) fn with_discovered(&self, config: Config) -> Config {
        let mut discovery = self.admin_state.discovery.borrow_mut();
        let topology = discovery.configure(&config.dns, config.topology.clone(), Instant::now());
        Config { topology, ..config }
    }

    pub(super) fn on_lookup_result(&self, result: LookupResult) {
        self.admin_state.discovery.borrow_mut().on_lookup_result(result, Instant::now());
    }

    /// Takes in lookup results, starts due lookups, and applies a changed topology.
    pub(super) fn run_discovery(&mut self) {
        while let Ok(result) = self.lookup_results.receiver.try_recv() {
            self.on_lookup_result(result);
        }
        let now = Instant::now();
        self.admin_state.discovery.borrow_mut().start_due_lookups(&self.lookup_results.sender, now);
        let changed = self.admin_state.discovery.borrow_mut().take_changed_topology(now);
        if let Some(topology) = changed {
            self.apply_topology(topology);
        }
    }

    fn apply_topology(&mut self, topology: Topology) {
        self.end_fault_injection("the endpoints that a name leads to have changed");
        let config = Config { topology: topology.clone(), ..self.running_config.clone() };
        self.admin_state.shared.allow_descriptors(&config);
        self.apply_config_input(Input::UpdateEndpoints(topology), config);
        self.drive_directors();
    }
}
