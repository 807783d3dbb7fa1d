//! POSTs, which are derived from their number and the seed.

use serde::Serialize;

/// The prefix of the route that trusts `Idempotency-Key`.
const KEYED_PATH: &str = "/keyed";

/// The path of the other route.
const PLAIN_PATH: &str = "/work";

/// The largest body: the default size of the replay buffer.
const LARGE_BODY_BYTES: usize = 64 * 1024;

const SMALL_BODY_BYTES: usize = 1024;

static BODY: [u8; LARGE_BODY_BYTES] = [b'x'; LARGE_BODY_BYTES];

/// Whether a POST may be executed more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IdempotencyPromise {
    /// Without a key: it must not be executed twice.
    None,
    /// With a key, on a route that does not trust keys: it must not be executed twice.
    Unheard,
    /// With a key, on a route that trusts keys: it may be retried.
    Keyed,
}

impl IdempotencyPromise {
    /// All kinds, in the order of reports.
    pub(crate) const ALL: [Self; 3] = [Self::None, Self::Unheard, Self::Keyed];

    /// The name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "no key",
            Self::Unheard => "key, not heeded",
            Self::Keyed => "key, heeded",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Post {
    /// The number, by which executions are counted.
    pub(crate) number: u64,
    /// Whether it may be executed twice.
    pub(crate) promise: IdempotencyPromise,
    pub(crate) body: &'static [u8],
}

impl Post {
    /// The POST with this number, in a run with this seed.
    pub(crate) fn generate(seed: u64, number: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_add(number));
        let promise = match random.u32(..100) {
            ..70 => IdempotencyPromise::None,
            70..80 => IdempotencyPromise::Unheard,
            _ => IdempotencyPromise::Keyed,
        };
        let body_bytes = match random.u32(..100) {
            ..40 => 0,
            40..98 => SMALL_BODY_BYTES,
            _ => LARGE_BODY_BYTES,
        };
        Self { number, promise, body: &BODY[..body_bytes] }
    }

    pub(crate) fn path(&self) -> String {
        let path_prefix =
            if self.promise == IdempotencyPromise::Keyed { KEYED_PATH } else { PLAIN_PATH };
        format!("{path_prefix}/{}", self.number)
    }
}

/// Text that is appended to a configuration of one pool, `pool-0`: the route that trusts keys, and
/// a short recovery, so that enough endpoints serve.
pub(crate) fn extra_config() -> String {
    format!(
        "\n[[route]]\nhost = \"pool-0\"\npath = \"{KEYED_PATH}/\"\npool = \"pool-0\"\n\
         retry = {{ idempotency_key = true }}\n\n\
         [pool.pool-0.recover]\nhold_down = \"100ms\"\nhold_down_max = \"500ms\"\nramp = \"1s\"\n"
    )
}
