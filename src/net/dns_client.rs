//! A DNS client for one kind of record of one name. It caches no answers: `logic::discovery`
//! decides when a name is looked up again.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::time::timeout;

use crate::logic::discovery::{
    DnsRecordType, LookupAnswer, LookupFailure, LookupQuestion, LookupRecords, NegativeReason,
    SrvTarget,
};

/// Queries for one question within its timeout, because datagrams get lost.
const QUERY_ATTEMPTS: u32 = 3;

/// The interval at which the system's files are checked for changes.
const SYSTEM_CONFIG_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The system's list of servers and its list of hosts.
const SYSTEM_CONFIG_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// The servers to query, and the timeout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsServers {
    /// Servers that are queried directly, without a search list. `None` uses the system's
    /// `resolv.conf`, with its search list, and its hosts file.
    pub addresses: Option<Vec<SocketAddr>>,
    /// The time for one question, all of its queries included.
    pub timeout: Duration,
}

/// The modification times of [`SYSTEM_CONFIG_FILES`].
type ModificationTimes = [Option<SystemTime>; SYSTEM_CONFIG_FILES.len()];

#[derive(Default)]
struct CachedResolver {
    resolver: Option<TokioResolver>,
    checked_at: Option<Instant>,
    modification_times: ModificationTimes,
}

/// A DNS client for one thread.
pub struct DnsClient {
    servers: DnsServers,
    cached: RefCell<CachedResolver>,
}

impl DnsClient {
    /// A client that has sent no query yet.
    pub fn new(servers: DnsServers) -> Self {
        Self { servers, cached: RefCell::default() }
    }

    pub fn servers(&self) -> &DnsServers {
        &self.servers
    }

    /// Looks `question` up; returns within the timeout.
    pub async fn lookup(&self, question: &LookupQuestion) -> LookupAnswer {
        let query = async {
            let Some(resolver) = self.resolver().await else {
                return LookupAnswer::Failed(LookupFailure::NoServers);
            };
            let Ok(name) = Name::from_ascii(&*question.name) else {
                return LookupAnswer::Failed(LookupFailure::Invalid);
            };
            match resolver.lookup(name, record_type(question.record_type)).await {
                Ok(lookup) => lookup_answer(&lookup, question.record_type),
                Err(error) => error_answer(&error),
            }
        };
        timeout(self.servers.timeout, query)
            .await
            .unwrap_or(LookupAnswer::Failed(LookupFailure::Timeout))
    }

    /// The resolver; rebuilt when the system's files have changed.
    async fn resolver(&self) -> Option<TokioResolver> {
        let is_system = self.servers.addresses.is_none();
        let (previous, previous_times) = {
            let mut cached = self.cached.borrow_mut();
            let now = Instant::now();
            let is_fresh =
                cached.checked_at.is_some_and(|at| now < at + SYSTEM_CONFIG_CHECK_INTERVAL);
            if cached.resolver.is_some() && (is_fresh || !is_system) {
                return cached.resolver.clone();
            }
            cached.checked_at = Some(now);
            (cached.resolver.clone(), cached.modification_times)
        };
        let servers = self.servers.clone();
        // Reading files may block.
        let rebuild = tokio::task::spawn_blocking(move || {
            let times = if is_system { modification_times() } else { ModificationTimes::default() };
            if previous.is_some() && times == previous_times {
                return (previous, times);
            }
            // A file that is just being written may list no server: keep the previous resolver.
            (build_resolver(&servers).ok().or(previous), times)
        });
        let (resolver, times) = rebuild.await.ok()?;
        let mut cached = self.cached.borrow_mut();
        (cached.resolver, cached.modification_times) = (resolver.clone(), times);
        resolver
    }
}

fn modification_times() -> ModificationTimes {
    SYSTEM_CONFIG_FILES
        .map(|file| std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok())
}

fn build_resolver(servers: &DnsServers) -> Result<TokioResolver, NetError> {
    let mut builder = match &servers.addresses {
        None => TokioResolver::builder_tokio()?,
        Some(addresses) => {
            let servers = addresses.iter().map(|address| {
                let mut server = NameServerConfig::udp_and_tcp(address.ip());
                server
                    .connections
                    .iter_mut()
                    .for_each(|connection| connection.port = address.port());
                server
            });
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            let mut builder =
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            builder.options_mut().use_hosts_file = ResolveHosts::Never;
            builder
        }
    };
    let options = builder.options_mut();
    options.timeout = servers.timeout / QUERY_ATTEMPTS;
    options.attempts = QUERY_ATTEMPTS as usize - 1;
    // The caller decides how long an answer is kept.
    options.cache_size = 0;
    // The TTLs of CNAME records bound that of the addresses.
    options.preserve_intermediates = true;
    builder.build()
}

fn record_type(record: DnsRecordType) -> RecordType {
    match record {
        DnsRecordType::A => RecordType::A,
        DnsRecordType::Aaaa => RecordType::AAAA,
        DnsRecordType::Srv => RecordType::SRV,
    }
}

fn lookup_answer(lookup: &Lookup, record: DnsRecordType) -> LookupAnswer {
    let answers = lookup.answers();
    let ttl = answers.iter().map(|answer| answer.ttl).min().unwrap_or(0);
    let ttl = Duration::from_secs(u64::from(ttl));
    let records = match record {
        DnsRecordType::A | DnsRecordType::Aaaa => {
            let address = |data: &RData| match (record, data) {
                (DnsRecordType::A, RData::A(ip)) => Some(ip.0.into()),
                (DnsRecordType::Aaaa, RData::AAAA(ip)) => Some(ip.0.into()),
                _ => None,
            };
            LookupRecords::Addresses(
                answers.iter().filter_map(|answer| address(&answer.data)).collect(),
            )
        }
        DnsRecordType::Srv => {
            let service = |data: &RData| match data {
                RData::SRV(srv) => Some(SrvTarget {
                    priority: srv.priority,
                    weight: srv.weight,
                    target: srv.target.to_ascii().to_ascii_lowercase().into(),
                    port: srv.port,
                }),
                _ => None,
            };
            LookupRecords::SrvTargets(
                answers.iter().filter_map(|answer| service(&answer.data)).collect(),
            )
        }
    };
    LookupAnswer::Found { records, ttl }
}

fn error_answer(error: &NetError) -> LookupAnswer {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(records)) => negative_answer(records),
        NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail)) => {
            LookupAnswer::Failed(LookupFailure::ServerFailure)
        }
        NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused)) => {
            LookupAnswer::Failed(LookupFailure::Refused)
        }
        NetError::Timeout | NetError::Busy => LookupAnswer::Failed(LookupFailure::Timeout),
        NetError::Io(_) | NetError::NoConnections => {
            LookupAnswer::Failed(LookupFailure::Unreachable)
        }
        _ => LookupAnswer::Failed(LookupFailure::Invalid),
    }
}

fn negative_answer(records: &NoRecords) -> LookupAnswer {
    let reason = match records.response_code {
        ResponseCode::NXDomain => NegativeReason::NxDomain,
        // A referral to other servers does not prove that there are no records.
        ResponseCode::NoError if records.soa.is_none() && records.ns.is_some() => {
            return LookupAnswer::Failed(LookupFailure::Invalid);
        }
        ResponseCode::NoError => NegativeReason::NoData,
        _ => return LookupAnswer::Failed(LookupFailure::Invalid),
    };
    let ttl = records.negative_ttl.map(|seconds| Duration::from_secs(u64::from(seconds)));
    LookupAnswer::Negative { reason, ttl }
}
