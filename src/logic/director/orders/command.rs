//! Commands of operators: their selection, their checks and their results.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::logic::director::Director;
use crate::logic::director::event::{Event, OrderChange};
use crate::logic::director::pools::PoolState;
use crate::logic::model::id::Locality;
use crate::logic::model::selector::TopologySelector;
use crate::logic::orders::{
    OperatorOrder, OperatorOrders, OrderAction, OrderDraft, OrderSource, OrderedEndpoint,
};

/// A command of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorCommand {
    /// The endpoints that it concerns.
    pub selector: TopologySelector,
    /// Only in this pool, if it is named.
    pub pool: Option<Arc<str>>,
    pub action: OperatorAction,
    pub until: Option<Instant>,
    pub author: Option<Arc<str>>,
    pub note: Option<Arc<str>>,
    /// Carry it out even if too little would be left.
    pub is_forced: bool,
}

/// The action of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorAction {
    Issue(OrderAction),
    /// Revoke the orders on exactly this scope, and exempt it from drains of a larger one.
    Restore,
}

impl OperatorCommand {
    fn into_draft(self, action: OrderAction) -> OrderDraft {
        let Self { selector: scope, pool, until: expires_at, author, note, .. } = self;
        OrderDraft { scope, pool, action, expires_at, author, note }
    }
}

/// Why a command is refused; then nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// No such endpoint, zone, region, pool or order.
    UnknownTarget(String),
    /// The command cannot be carried out in any state of the pools.
    Invalid(String),
    /// Too little would be left; one reason per pool.
    InsufficientCapacity(Vec<String>),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownTarget(why) | Self::Invalid(why) => f.write_str(why),
            Self::InsufficientCapacity(reasons) => f.write_str(&reasons.join("\n")),
        }
    }
}

/// The orders that a command gave and revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedCommand {
    /// The order that was given, if any.
    pub order: Option<OperatorOrder>,
    /// Orders that were revoked.
    pub lifted: Vec<OperatorOrder>,
    /// After a restoration: orders by which a part of the scope stays drained.
    pub remaining: Vec<OperatorOrder>,
}

/// An endpoint of the configuration that a command selects.
struct EndpointKey {
    pool: Arc<str>,
    place: Locality,
    address: SocketAddr,
}

impl EndpointKey {
    fn ordered_endpoint(&self) -> OrderedEndpoint<'_> {
        OrderedEndpoint { pool: &self.pool, locality: &self.place, address: self.address }
    }
}

impl Director {
    /// Carries out a command, unless too little would be left.
    ///
    /// # Errors
    /// The reason for a refusal; then nothing has changed.
    pub fn execute_command(
        &mut self,
        command: OperatorCommand,
        now: Instant,
    ) -> Result<AppliedCommand, CommandError> {
        self.now = now;
        let endpoints = self.find_endpoints(&command.selector, command.pool.as_deref())?;
        let applied = match command.action {
            OperatorAction::Issue(action) => {
                if self.order_book.orders().is_full() {
                    let why = "there are too many orders already: restore something first";
                    return Err(CommandError::Invalid(why.to_owned()));
                }
                if matches!(action, OrderAction::Drain { .. }) && !command.is_forced {
                    let shortages = self.shortages(&command.selector, command.pool.as_deref());
                    if !shortages.is_empty() {
                        return Err(CommandError::InsufficientCapacity(shortages));
                    }
                }
                let draft = command.into_draft(action);
                let order = self.order_book.orders_mut().issue(draft, now).clone();
                AppliedCommand { order: Some(order), ..AppliedCommand::default() }
            }
            OperatorAction::Restore => self.restore(command, &endpoints, now),
        };
        for order in applied.lifted.iter().cloned() {
            self.push_event(Event::OrderChanged { order, change: OrderChange::Lifted });
        }
        if let Some(order) = applied.order.clone() {
            self.push_event(Event::OrderChanged { order, change: OrderChange::Given });
        }
        self.apply_orders(now);
        Ok(applied)
    }

    fn restore(
        &mut self,
        command: OperatorCommand,
        endpoints: &[EndpointKey],
        now: Instant,
    ) -> AppliedCommand {
        let draft = command.into_draft(OrderAction::Serve);
        let (scope, pool) = (&draft.scope, draft.pool.as_deref());
        let lifted = self.order_book.orders_mut().revoke_matching(scope, pool);
        let active_drains = |orders: &OperatorOrders| {
            let drains = endpoints
                .iter()
                .flat_map(|endpoint| orders.drains_for(endpoint.ordered_endpoint()));
            let mut active: Vec<OperatorOrder> = drains.cloned().collect();
            active.sort_by_key(|order| order.id);
            active.dedup_by_key(|order| order.id);
            active
        };
        let before = active_drains(self.order_book.orders());
        let mut candidate = self.order_book.orders().clone();
        let order = candidate.issue(draft, now).clone();
        let remaining = active_drains(&candidate);
        if remaining == before {
            return AppliedCommand { order: None, lifted, remaining };
        }
        *self.order_book.orders_mut() = candidate;
        AppliedCommand { order: Some(order), lifted, remaining }
    }

    /// Revokes an order by its number.
    ///
    /// # Errors
    /// If there is no such order, or the configuration gave it.
    pub fn lift_order(&mut self, id: u64, now: Instant) -> Result<OperatorOrder, CommandError> {
        self.now = now;
        match self.order_book.orders().find(id) {
            None => Err(CommandError::UnknownTarget(format!("there is no order {id}"))),
            Some(order) if order.source == OrderSource::Config => {
                Err(CommandError::Invalid(format!(
                    "order {id} is the file's: `restore {}` makes an exception of it",
                    order.scope
                )))
            }
            Some(order) => {
                let order = order.clone();
                self.order_book.orders_mut().revoke(id);
                self.push_event(Event::OrderChanged {
                    order: order.clone(),
                    change: OrderChange::Lifted,
                });
                self.apply_orders(now);
                Ok(order)
            }
        }
    }

    /// The endpoints of the configuration that are selected.
    fn find_endpoints(
        &self,
        selector: &TopologySelector,
        pool: Option<&str>,
    ) -> Result<Vec<EndpointKey>, CommandError> {
        let is_selected_pool =
            |state: &&PoolState| pool.is_none_or(|name| *state.spec().name == *name);
        let (mut found, mut has_pool) = (Vec::new(), false);
        for state in self.pools.iter().filter(is_selected_pool) {
            has_pool = true;
            for zone in &state.spec().zones {
                for endpoint in &zone.endpoints {
                    let is_match = match selector {
                        TopologySelector::Endpoint(address) => *address == endpoint.address,
                        TopologySelector::Zone(place) => *place == zone.locality,
                        TopologySelector::Region(region) => *region == zone.locality.region,
                    };
                    if is_match {
                        let (pool, place) = (Arc::clone(&state.spec().name), zone.locality.clone());
                        found.push(EndpointKey { pool, place, address: endpoint.address });
                    }
                }
            }
        }
        match pool {
            Some(name) if !has_pool => {
                Err(CommandError::UnknownTarget(format!("there is no pool `{name}`")))
            }
            _ if found.is_empty() => {
                Err(CommandError::UnknownTarget(self.unknown_target_message(selector, pool)))
            }
            _ => Ok(found),
        }
    }

    fn unknown_target_message(&self, selector: &TopologySelector, pool: Option<&str>) -> String {
        let is_same_kind = |one: &TopologySelector| {
            std::mem::discriminant(one) == std::mem::discriminant(selector)
        };
        let alternatives: Vec<String> = self
            .selectors()
            .iter()
            .filter(|one| is_same_kind(one))
            .take(20)
            .map(TopologySelector::to_string)
            .collect();
        let kind = match selector {
            TopologySelector::Endpoint(_) => "endpoint",
            TopologySelector::Zone(_) => "zone",
            TopologySelector::Region(_) => "region",
        };
        let place =
            pool.map_or_else(|| "no pool has".to_owned(), |pool| format!("pool {pool} has no"));
        let a = if pool.is_some() { "" } else { "the " };
        format!("{place} {a}{kind} `{selector}`; there is {}", alternatives.join(", "))
    }
}
