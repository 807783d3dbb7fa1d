//! The table of failures. A new class is a new row.

/// One class of failure.
#[derive(Debug)]
pub(crate) struct FaultClass {
    /// The name for `--class`, and its row in `gapless predict`.
    pub(crate) name: &'static str,
    /// The broader class whose row stands for it where it has none of its own.
    pub(crate) broader: Option<&'static str>,
    /// How it is brought about.
    pub(crate) mechanism: FaultMechanism,
    /// The pool's `probe`.
    pub(crate) probe: &'static str,
}

/// How an endpoint is made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultMechanism {
    /// SIGKILL; healed by a new process.
    Kill,
    /// SIGSTOP; healed by SIGCONT.
    Stop,
    /// Packets to and from its address are dropped.
    DropPackets,
    /// The endpoint is told to misbehave.
    Misbehave(EndpointFault),
}

/// What an endpoint does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndpointFault {
    None,
    /// Accepts, and resets whatever is asked.
    Reset,
    StatusAll,
    /// 503 to traffic; the probe's path answers well.
    StatusTraffic,
    /// Everything takes two seconds.
    Slow,
    /// Of the answers to traffic 30 % are 500, at random.
    Errors30,
    /// A head and half of the body that it announced, then the end; for traffic only.
    Cut,
    /// The probe's path answers 200 with another body.
    WrongBody,
    /// The certificate on the probe's port has expired.
    Certificate,
}

impl EndpointFault {
    /// All of them; the position is what the endpoint's process keeps.
    pub(crate) const ALL: [Self; 9] = [
        Self::None,
        Self::Reset,
        Self::StatusAll,
        Self::StatusTraffic,
        Self::Slow,
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
            Self::Errors30 => "errors_30",
            Self::Cut => "cut",
            Self::WrongBody => "wrong_body",
            Self::Certificate => "certificate",
        }
    }
}

/// The probe of every class that does not need another one.
const HTTP_PROBE: &str = r#"{ http = "/healthz" }"#;

/// One that reads the body.
const BODY_PROBE: &str = r#"{ http = "/healthz", expect_body = "well" }"#;

/// One over TLS, on a port of its own; the authority's certificate lies beside the configuration.
const TLS_PROBE: &str = "{ http = \"/healthz\", port = 7078, \
    tls = { ca_file = \"ca.pem\", server_name = \"bench.example\" } }";

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

/// All classes, in the order of reports.
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
    // The default timeout is a quarter of what it takes to answer: to a probe it is silence.
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

/// The classes of `--smoke`. Not `refused`: with traffic it takes either one probe or two that are
/// 20 ms apart, so that its 99th percentile is a cliff, and five runs are few to stand on it.
pub(crate) const SMOKE_CLASSES: [&str; 2] = ["reset", "status_all"];
