//! Eligibility: the requests that an endpoint may receive, as its state is published.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eligibility {
    /// Nothing: its verdict is down.
    #[default]
    Out,
    Unknown,
    Clear,
    /// Repeatable requests.
    Doubted,
    /// Requests that no clear or doubted endpoint can serve: a few probes confirm or clear it.
    Suspect,
    /// Requests that not even a suspect can serve: its zone is down.
    LastResort,
    /// A single repeatable request from time to time.
    Trial,
    /// Nothing: an operator's order.
    Drained,
}

impl Eligibility {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Unknown => "unknown",
            Self::Clear => "clear",
            Self::Doubted => "doubted",
            Self::Suspect => "suspect",
            Self::LastResort => "last_resort",
            Self::Trial => "trial",
            Self::Drained => "drained",
        }
    }
}
