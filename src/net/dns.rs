//! Asks DNS for one kind of record of one name. Keeps no answers: when to ask again is decided elsewhere.

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

use crate::logic::discovery::{Answer, Data, Failure, Lack, Question, Record, Service};

/// Within its time a question is sent so often: datagrams get lost.
const SENDINGS: u32 = 3;

/// What the system says of its servers and hosts is looked at no more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where the system says it.
const SYSTEM_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Who is asked, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    /// They are asked directly, and a name is looked up as it is. `None` goes by the system's
    /// `resolv.conf`, with its search list, and its file of hosts.
    pub addresses: Option<Vec<SocketAddr>>,
    /// An answer must be there by then.
    pub timeout: Duration,
}

/// When each of [`SYSTEM_FILES`] was last written.
type Stamps = [Option<SystemTime>; SYSTEM_FILES.len()];

#[derive(Default)]
struct Current {
    resolver: Option<TokioResolver>,
    looked_at: Option<Instant>,
    stamps: Stamps,
}

/// A client of DNS, for one thread.
pub struct Dns {
    servers: Servers,
    current: RefCell<Current>,
}

impl Dns {
    /// A client that has asked nobody yet.
    #[must_use]
    pub fn new(servers: Servers) -> Self {
        Self { servers, current: RefCell::default() }
    }

    /// Who is asked.
    #[must_use]
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Asks, and gives an answer within the time that it has.
    pub async fn ask(&self, question: &Question) -> Answer {
        let asking = async {
            let Some(resolver) = self.resolver().await else {
                return Answer::Failed(Failure::NoServers);
            };
            let Ok(name) = Name::from_ascii(&*question.name) else {
                return Answer::Failed(Failure::Invalid);
            };
            match resolver.lookup(name, kind(question.record)).await {
                Ok(lookup) => found(&lookup, question.record),
                Err(error) => failed(&error),
            }
        };
        timeout(self.servers.timeout, asking).await.unwrap_or(Answer::Failed(Failure::Timeout))
    }

    /// The resolver, made anew if the system says something else than it did.
    async fn resolver(&self) -> Option<TokioResolver> {
        let is_system = self.servers.addresses.is_none();
        let (known, before) = {
            let mut current = self.current.borrow_mut();
            let now = Instant::now();
            let is_fresh = current.looked_at.is_some_and(|at| now < at + LOOK_EVERY);
            if current.resolver.is_some() && (is_fresh || !is_system) {
                return current.resolver.clone();
            }
            current.looked_at = Some(now);
            (current.resolver.clone(), current.stamps)
        };
        let servers = self.servers.clone();
        // Reading files may take its time.
        let making = tokio::task::spawn_blocking(move || {
            let stamps = if is_system { stamps() } else { Stamps::default() };
            if known.is_some() && stamps == before {
                return (known, stamps);
            }
            // While the system's files are being written there may be no server in them.
            (make(&servers).ok().or(known), stamps)
        });
        let (resolver, stamps) = making.await.ok()?;
        let mut current = self.current.borrow_mut();
        (current.resolver, current.stamps) = (resolver.clone(), stamps);
        resolver
    }
}

fn stamps() -> Stamps {
    SYSTEM_FILES.map(|file| std::fs::metadata(file).and_then(|about| about.modified()).ok())
}

fn make(servers: &Servers) -> Result<TokioResolver, NetError> {
    let mut builder = match &servers.addresses {
        None => TokioResolver::builder_tokio()?,
        Some(addresses) => {
            let servers = addresses.iter().map(|address| {
                let mut server = NameServerConfig::udp_and_tcp(address.ip());
                server.connections.iter_mut().for_each(|way| way.port = address.port());
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
    options.timeout = servers.timeout / SENDINGS;
    options.attempts = SENDINGS as usize - 1;
    // What is kept, and for how long, is decided by who asks.
    options.cache_size = 0;
    // The way by which a name leads to its addresses bounds how long they hold.
    options.preserve_intermediates = true;
    builder.build()
}

fn kind(record: Record) -> RecordType {
    match record {
        Record::A => RecordType::A,
        Record::Aaaa => RecordType::AAAA,
        Record::Srv => RecordType::SRV,
    }
}

fn found(lookup: &Lookup, record: Record) -> Answer {
    let answers = lookup.answers();
    let ttl = answers.iter().map(|answer| answer.ttl).min().unwrap_or(0);
    let ttl = Duration::from_secs(u64::from(ttl));
    let data = match record {
        Record::A | Record::Aaaa => {
            let address = |data: &RData| match (record, data) {
                (Record::A, RData::A(ip)) => Some(ip.0.into()),
                (Record::Aaaa, RData::AAAA(ip)) => Some(ip.0.into()),
                _ => None,
            };
            Data::Addresses(answers.iter().filter_map(|answer| address(&answer.data)).collect())
        }
        Record::Srv => {
            let service = |data: &RData| match data {
                RData::SRV(srv) => Some(Service {
                    priority: srv.priority,
                    weight: srv.weight,
                    target: srv.target.to_ascii().to_ascii_lowercase().into(),
                    port: srv.port,
                }),
                _ => None,
            };
            Data::Services(answers.iter().filter_map(|answer| service(&answer.data)).collect())
        }
    };
    Answer::Found { data, ttl }
}

fn failed(error: &NetError) -> Answer {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => lacking(none),
        NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail)) => {
            Answer::Failed(Failure::ServerFailure)
        }
        NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused)) => {
            Answer::Failed(Failure::Refused)
        }
        NetError::Timeout | NetError::Busy => Answer::Failed(Failure::Timeout),
        NetError::Io(_) | NetError::NoConnections => Answer::Failed(Failure::Unreachable),
        _ => Answer::Failed(Failure::Invalid),
    }
}

fn lacking(none: &NoRecords) -> Answer {
    let lack = match none.response_code {
        ResponseCode::NXDomain => Lack::NxDomain,
        // Who points to other servers only has not said that there is nothing.
        ResponseCode::NoError if none.soa.is_none() && none.ns.is_some() => {
            return Answer::Failed(Failure::Invalid);
        }
        ResponseCode::NoError => Lack::NoData,
        _ => return Answer::Failed(Failure::Invalid),
    };
    let ttl = none.negative_ttl.map(|seconds| Duration::from_secs(u64::from(seconds)));
    Answer::Lacking { lack, ttl }
}
