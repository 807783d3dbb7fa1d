//! The running program: what it says of probes, and certificates that change.
