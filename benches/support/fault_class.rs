//! The table of failure classes. A new class is a new row.

/// A class of failures.
#[derive(Debug)]
pub(crate) struct FaultClass {
    /// The name for `--class` and in `gapless predict`.
    pub(crate) name: &'static str,
    /// The broader class whose prediction applies where the class has none.
    pub(crate) broader: Option<&'static str>,
    /// The mechanism of the failure.
    pub(crate) mechanism: FaultMechanism,
    /// The pool's `probe`.
    pub(crate) probe: &'static str,
}

/// How an endpoint is made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultMechanism {
    /// SIGKILL; a new process heals it.
    Kill,
    /// SIGSTOP; SIGCONT heals it.
    Stop,
    /// Packets to and from its address are dropped.
    DropPackets,
    /// A fifth of the packets to and from its address are dropped.
    LosePackets,
    /// A command makes the endpoint misbehave.
    Misbehave(EndpointFault),
}

/// The misbehaviour of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndpointFault {
    None,
    /// Accepts connections and resets them on any request.
    Reset,
    StatusAll,
    /// 503 for traffic; probes pass.
    StatusTraffic,
    /// Every response takes two seconds.
    Slow,
    /// A random tenth of the responses takes 0.8 seconds.
    Tail10,
    /// A random 30 % of responses to traffic are 500.
    Errors30,
    /// For traffic: a head and half of the announced body, then the end of the connection.
    Cut,
    /// The probe's path answers 200 with another body.
    WrongBody,
    /// The certificate on the probe's port has expired.
    Certificate,
}

impl EndpointFault {
    /// All faults; the endpoint stores the index.
    pub(crate) const ALL: [Self; 10] = [
        Self::None,
        Self::Reset,
        Self::StatusAll,
        Self::StatusTraffic,
        Self::Slow,
        Self::Tail10,
        Self::Errors30,
        Self::Cut,
        Self::WrongBody,
        Self::Certificate,
    ];

    pub(crate) fn command(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Reset => "reset",
            Self::StatusAll => "status_all",
            Self::StatusTraffic => "status_traffic",
            Self::Slow => "slow",
            Self::Tail10 => "tail_10",
            Self::Errors30 => "errors_30",
            Self::Cut => "cut",
            Self::WrongBody => "wrong_body",
            Self::Certificate => "certificate",
        }
    }
}

/// The probe of classes without a special one.
const HTTP_PROBE: &str = r#"{ http = "/healthz" }"#;

/// A probe that tests the body.
const BODY_PROBE: &str = r#"{ http = "/healthz", expect_body = "well" }"#;

/// A probe over TLS on a separate port; the CA certificate is beside the configuration.
const TLS_PROBE: &str = "{ http = \"/healthz\", port = 7078, \
    tls = { ca_file = \"ca.pem\", server_name = \"bench.example\" } }";

impl FaultMechanism {
    /// Whether the failure needs a network namespace in which packets are dropped.
    pub(crate) fn drops_packets(self) -> bool {
        matches!(self, Self::DropPackets | Self::LosePackets)
    }
}

impl FaultClass {
    /// Whether the probe needs an endpoint that has a certificate.
    pub(crate) fn has_tls_probe(&self) -> bool {
        self.probe == TLS_PROBE
    }
}

const fn misbehavior_class(
    name: &'static str,
    broader: Option<&'static str>,
    fault: EndpointFault,
) -> FaultClass {
    FaultClass { name, broader, mechanism: FaultMechanism::Misbehave(fault), probe: HTTP_PROBE }
}

/// All classes that `gapless predict` knows, in the order of reports.
pub(crate) const CLASSES: &[FaultClass] = &[
    FaultClass {
        name: "refused",
        broader: None,
        mechanism: FaultMechanism::Kill,
        probe: HTTP_PROBE,
    },
    misbehavior_class("reset", None, EndpointFault::Reset),
    FaultClass {
        name: "hang",
        broader: Some("silent"),
        mechanism: FaultMechanism::Stop,
        probe: HTTP_PROBE,
    },
    FaultClass {
        name: "black_hole",
        broader: Some("silent"),
        mechanism: FaultMechanism::DropPackets,
        probe: HTTP_PROBE,
    },
    misbehavior_class("status_all", Some("bad_status"), EndpointFault::StatusAll),
    misbehavior_class("status_traffic", None, EndpointFault::StatusTraffic),
    // The response takes four times the default timeout: for a probe it is silence.
    misbehavior_class("slow", Some("silent"), EndpointFault::Slow),
    misbehavior_class("errors_30", None, EndpointFault::Errors30),
    misbehavior_class("cut", None, EndpointFault::Cut),
    FaultClass {
        name: "wrong_body",
        broader: Some("bad_status"),
        mechanism: FaultMechanism::Misbehave(EndpointFault::WrongBody),
        probe: BODY_PROBE,
    },
    FaultClass {
        name: "certificate",
        broader: Some("tls"),
        mechanism: FaultMechanism::Misbehave(EndpointFault::Certificate),
        probe: TLS_PROBE,
    },
];

/// Classes of slowness that `gapless predict` does not know.
pub(crate) const UNPREDICTED_CLASSES: &[FaultClass] = &[
    FaultClass {
        name: "loss_20",
        broader: None,
        mechanism: FaultMechanism::LosePackets,
        probe: HTTP_PROBE,
    },
    misbehavior_class("tail_10", None, EndpointFault::Tail10),
];

/// The classes of `--smoke`, without `refused`: with traffic it takes one probe or two that are 20
/// ms apart, so that five runs say little about its 99th percentile.
pub(crate) const SMOKE_CLASSES: [&str; 2] = ["reset", "status_all"];
