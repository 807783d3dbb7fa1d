//! The table of failures. A new class is a new row.

/// One class of failure.
#[derive(Debug)]
pub(crate) struct Class {
    /// The name for `--class`, and its row in `gapless predict`.
    pub(crate) name: &'static str,
    /// The broader class whose row stands for it where it has none of its own.
    pub(crate) broader: Option<&'static str>,
    /// How it is brought about.
    pub(crate) means: Means,
    /// The pool's `probe`.
    pub(crate) probe: &'static str,
}

/// How an endpoint is made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    /// SIGKILL; healed by a new process.
    Kill,
    /// SIGSTOP; healed by SIGCONT.
    Stop,
    /// Packets to and from its address are dropped.
    Drop,
    /// The endpoint is told to misbehave.
    Order(Fault),
}

/// What an endpoint does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Accepts, and resets whatever is asked.
    Reset,
    /// 503 to everything.
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

impl Fault {
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

    /// The order's word.
    pub(crate) fn word(self) -> &'static str {
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
const PROBE: &str = r#"{ http = "/healthz" }"#;

/// One that reads the body.
const PROBE_OF_BODY: &str = r#"{ http = "/healthz", expect_body = "well" }"#;

/// One over TLS, on a port of its own; the authority's certificate lies beside the configuration.
const PROBE_OVER_TLS: &str = "{ http = \"/healthz\", port = 7078, \
    tls = { ca_file = \"ca.pem\", server_name = \"bench.example\" } }";

impl Class {
    /// Whether the probe needs an endpoint that has a certificate.
    pub(crate) fn is_over_tls(&self) -> bool {
        self.probe == PROBE_OVER_TLS
    }
}

const fn ordered(name: &'static str, broader: Option<&'static str>, fault: Fault) -> Class {
    Class { name, broader, means: Means::Order(fault), probe: PROBE }
}

/// All classes, in the order of reports.
pub(crate) const CLASSES: &[Class] = &[
    Class { name: "refused", broader: None, means: Means::Kill, probe: PROBE },
    ordered("reset", None, Fault::Reset),
    Class { name: "hang", broader: Some("silent"), means: Means::Stop, probe: PROBE },
    Class { name: "black_hole", broader: Some("silent"), means: Means::Drop, probe: PROBE },
    ordered("status_all", Some("bad_status"), Fault::StatusAll),
    ordered("status_traffic", None, Fault::StatusTraffic),
    // The default timeout is a quarter of what it takes to answer: to a probe it is silence.
    ordered("slow", Some("silent"), Fault::Slow),
    ordered("errors_30", None, Fault::Errors30),
    ordered("cut", None, Fault::Cut),
    Class {
        name: "wrong_body",
        broader: Some("bad_status"),
        means: Means::Order(Fault::WrongBody),
        probe: PROBE_OF_BODY,
    },
    Class {
        name: "certificate",
        broader: Some("tls"),
        means: Means::Order(Fault::Certificate),
        probe: PROBE_OVER_TLS,
    },
];

/// The classes of `--smoke`. Not `refused`: with traffic it takes either one probe or two that are
/// 20 ms apart, so that its 99th percentile is a cliff, and five runs are few to stand on it.
pub(crate) const SMOKE: [&str; 2] = ["reset", "status_all"];
