//! Service discovery by DNS: lookups, their answers, and the resulting endpoints.
//!
//! [`LookupScheduler`] decides when to query which name, and keeps the last good answers.
//! [`compose()`] adds the endpoints of these answers to the declared topology. Both are pure: the
//! driver takes due questions, queries DNS, and passes the answers in. Lookups follow the TTL; a
//! failed or empty answer keeps the endpoints. May use: `model`.

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
