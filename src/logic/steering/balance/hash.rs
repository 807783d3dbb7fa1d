//! Hash functions that are stable across processes, versions and machines: a key must find the same
//! endpoint after a restart and from another instance.

use std::net::{IpAddr, SocketAddr};

const PRIME_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PRIME_3: u64 = 0x1656_67B1_9E37_79F9;
const PRIME_4: u64 = 0x85EB_CA77_C2B2_AE63;
const PRIME_5: u64 = 0x27D4_EB2F_1656_67C5;

/// XXH64 with seed 0 (Collet), the hash that Envoy uses.
pub fn xxh64(bytes: &[u8]) -> u64 {
    let length = bytes.len() as u64;
    let mut stripes = bytes.chunks_exact(32);
    let mut hash = if bytes.len() < 32 {
        PRIME_5.wrapping_add(length)
    } else {
        let mut lanes = [PRIME_1.wrapping_add(PRIME_2), PRIME_2, 0, 0u64.wrapping_sub(PRIME_1)];
        for stripe in &mut stripes {
            for (lane, word) in lanes.iter_mut().zip(stripe.chunks_exact(8)) {
                *lane = round(*lane, word_64(word));
            }
        }
        let [a, b, c, d] = lanes;
        let mut hash = a
            .rotate_left(1)
            .wrapping_add(b.rotate_left(7))
            .wrapping_add(c.rotate_left(12))
            .wrapping_add(d.rotate_left(18));
        for lane in lanes {
            hash = (hash ^ round(0, lane)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
        }
        hash.wrapping_add(length)
    };
    let mut words = stripes.remainder().chunks_exact(8);
    for word in &mut words {
        hash ^= round(0, word_64(word));
        hash = hash.rotate_left(27).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
    }
    let mut rest = words.remainder();
    if let Some((half, after)) = rest.split_first_chunk::<4>() {
        hash ^= u64::from(u32::from_le_bytes(*half)).wrapping_mul(PRIME_1);
        hash = hash.rotate_left(23).wrapping_mul(PRIME_2).wrapping_add(PRIME_3);
        rest = after;
    }
    for &byte in rest {
        hash ^= u64::from(byte).wrapping_mul(PRIME_5);
        hash = hash.rotate_left(11).wrapping_mul(PRIME_1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(PRIME_2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(PRIME_3);
    hash ^ (hash >> 32)
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1)
}

fn word_64(word: &[u8]) -> u64 {
    word.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The identity of an endpoint in hash tables and cookies. It depends on the address only, so it
/// survives restarts and reloads.
pub fn endpoint_hash(address: SocketAddr) -> u64 {
    let mut bytes = [0; 18];
    let length = match address.ip() {
        IpAddr::V4(ip) => {
            bytes[..4].copy_from_slice(&ip.octets());
            4
        }
        IpAddr::V6(ip) => {
            bytes[..16].copy_from_slice(&ip.octets());
            16
        }
    };
    bytes[length..length + 2].copy_from_slice(&address.port().to_be_bytes());
    xxh64(&bytes[..length + 2])
}

/// An independent hash for each `salt` (the finalizer of SplitMix64).
pub(in crate::logic) fn mix(hash: u64, salt: u64) -> u64 {
    let mut mixed = hash ^ salt.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Maps a hash to the open interval (0, 1).
pub(in crate::logic) fn unit_interval(hash: u64) -> f64 {
    ((hash >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

/// Weighted rendezvous hashing (Thaler and Ravishankar; weights as in Schindelhauer and Schomaker):
/// the candidate with the smallest distance owns the key. Its share is proportional to its weight,
/// and a change of one weight moves keys to or from that candidate only.
pub(in crate::logic) fn rendezvous_distance(hash: u64, weight: f64) -> f64 {
    -unit_interval(hash).ln() / weight
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of the reference implementation.
    #[test]
    fn xxh64_matches_reference_vectors() {
        for (text, hash) in [
            ("", 0xEF46_DB37_51D8_E999),
            ("a", 0xD24E_C4F1_A98C_6E5B),
            ("abc", 0x44BC_2CF5_AD77_0999),
            ("foobar", 0xA2AA_05ED_9085_AAF9),
            (
                "Call me Ishmael. Some years ago--never mind how long precisely-",
                0x02A2_E854_70D6_FD96,
            ),
        ] {
            assert_eq!(xxh64(text.as_bytes()), hash, "{text}");
        }
    }

    #[test]
    fn endpoint_hash_depends_on_address_and_port_only() {
        let identity = |text: &str| endpoint_hash(text.parse().expect("an address"));
        assert_eq!(identity("10.0.0.1:80"), identity("10.0.0.1:80"));
        assert_ne!(identity("10.0.0.1:80"), identity("10.0.0.1:81"));
        assert_ne!(identity("10.0.0.1:80"), identity("[::ffff:10.0.0.1]:80"));
    }
}
