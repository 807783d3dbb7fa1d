//! Endpoints that are found by name come and go.

use std::time::Instant;

use crate::app::discovery::Heard;
use crate::config::model::Config;
use crate::logic::director::Input;
use crate::logic::topology::Topology;

use super::Control;

impl Control {
    /// A configuration with the endpoints that its names are known to lead to.
    pub(super) fn with_found(&self, config: Config) -> Config {
        let mut discovery = self.board.discovery.borrow_mut();
        let topology = discovery.configure(&config.dns, config.topology.clone(), Instant::now());
        Config { topology, ..config }
    }

    pub(super) fn heard(&self, heard: Heard) {
        self.board.discovery.borrow_mut().heard(heard, Instant::now());
    }

    /// Obeys what names have led to, and looks up those that are due.
    pub(super) fn discover(&mut self) {
        while let Ok(heard) = self.heard.1.try_recv() {
            self.heard(heard);
        }
        let now = Instant::now();
        self.board.discovery.borrow_mut().look_up(&self.heard.0, now);
        let rearranged = self.board.discovery.borrow_mut().rearranged(now);
        if let Some(topology) = rearranged {
            self.rearrange(topology);
        }
    }

    fn rearrange(&mut self, topology: Topology) {
        self.end_drill("the endpoints that a name leads to have changed");
        let config = Config { topology: topology.clone(), ..self.running.clone() };
        self.board.shared.allow_descriptors(&config);
        self.arrange(Input::Rearrange(topology), config);
        self.board.director.borrow_mut().handle_timeout(Instant::now());
        self.obey();
    }
}
