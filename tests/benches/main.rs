//! The pure parts of the benches: parsers, statistics and evaluations.
//!
//! The benches' files refer to each other by `crate::…`, so they are declared here and not beside
//! their tests. Files that several benches use are compiled once.

#[path = "../../benches/detection/calibration.rs"]
mod calibration;
#[path = "../../benches/support/certificates.rs"]
mod certificates;
#[path = "../../benches/support/endpoint_tls.rs"]
#[allow(dead_code, reason = "only an endpoint presents the certificates")]
mod endpoint_tls;
#[path = "../../benches/detection/evaluation.rs"]
mod evaluation;
#[path = "../../benches/support/executed_posts.rs"]
#[allow(dead_code, reason = "the file needs endpoints")]
mod executed_posts;
#[path = "../../benches/support/fault_class.rs"]
#[allow(dead_code, reason = "how classes are brought about needs processes")]
mod fault_class;
#[path = "../../benches/support/layout.rs"]
#[allow(dead_code, reason = "the names are for the bench's rounds")]
mod layout;
#[path = "../support/pki.rs"]
#[allow(dead_code, reason = "other tests need more kinds of certificates")]
mod pki;
#[path = "../../benches/soak/post.rs"]
#[allow(dead_code, reason = "what is sent needs clients")]
mod post;
#[path = "../../benches/detection/prediction.rs"]
#[allow(dead_code, reason = "asking for a prediction needs the program")]
mod prediction;
#[path = "../../benches/support/sample.rs"]
#[allow(dead_code, reason = "delays of sends are not tested")]
mod sample;
#[path = "../../benches/failover/scenario.rs"]
#[allow(dead_code, reason = "how long clients wait needs clients")]
mod scenario;
#[path = "../../benches/soak/sent_posts.rs"]
#[allow(dead_code, reason = "how many clients there are is the bench's")]
mod sent_posts;

mod dataplane;
mod detection;
mod failover;
mod soak;
