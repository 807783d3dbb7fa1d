//! Interim (1xx) responses to one request, bounded in number and in bytes (RFC 9110 15.2).

use http::{HeaderMap, StatusCode};

/// Interim responses before the final one, at most; more make the response malformed.
const MAX_INTERIM: u32 = 16;

/// Bytes of interim heads that are kept for the caller; later interim responses are dropped.
const MAX_INTERIM_BYTES: usize = 16 * 1024;

/// An interim response, which a final one follows.
#[derive(Debug)]
pub struct InterimResponse {
    /// 100 to 199, and never 101.
    pub status: StatusCode,
    pub headers: HeaderMap,
}

/// The interim responses to one request that the caller has not taken yet.
#[derive(Debug, Default)]
pub(super) struct InterimBuffer {
    count: u32,
    bytes: usize,
    responses: Vec<InterimResponse>,
}

impl InterimBuffer {
    /// Adds an interim response with a head of about `head_bytes`; `false` if there are too many.
    pub(super) fn try_push(&mut self, interim: InterimResponse, head_bytes: usize) -> bool {
        self.count += 1;
        self.bytes += head_bytes;
        if self.bytes <= MAX_INTERIM_BYTES {
            self.responses.push(interim);
        }
        self.count <= MAX_INTERIM
    }

    pub(super) fn take_all(&mut self) -> Vec<InterimResponse> {
        std::mem::take(&mut self.responses)
    }
}
