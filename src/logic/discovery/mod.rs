//! Endpoints that are found by name (DNS): when each name is looked up, what is believed of what DNS
//! says, and which endpoints that makes.
//!
//! [`Lookups`] decides when to ask what, and keeps the last good answers. [`compose()`] makes a topology of
//! the declared one and of them. Neither asks anybody: that is the driver's part.

mod address_filter;
mod compose;
mod discovery_name;
mod dns_name;
mod lookup_answer;
mod lookup_policy;
mod lookup_scheduler;
mod lookup_status;
mod origin;
mod placeholder;
mod question_state;
#[cfg(test)]
mod tests;

pub use compose::{ComposedTopology, PoolAddress, compose};
pub use discovery_name::{DiscoveryEntry, DiscoveryName};
pub use dns_name::{DnsNameError, normalise_dns_name};
pub use lookup_answer::{
    DnsRecordType, LookupAnswer, LookupFailure, LookupQuestion, LookupRecords, NegativeReason,
    SrvTarget,
};
pub use lookup_policy::{AddressFamily, EmptyAnswerPolicy, LookupPolicy};
pub use lookup_scheduler::{LookupScheduler, MAX_LOOKUPS_IN_FLIGHT};
pub use lookup_status::{CachedLookup, LookupChange, LookupState, LookupStatus};
pub use origin::EndpointOrigin;
pub use placeholder::{PLACEHOLDERS_PER_NAME, with_placeholder_endpoints};
