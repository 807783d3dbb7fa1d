//! Locations of IP addresses, from a database in MaxMind's format.

use std::net::IpAddr;
use std::sync::Arc;

use maxminddb::{Reader, path};

use crate::logic::steering::{ClientLocation, Country, Location};

/// An open database, held in memory.
#[derive(Debug)]
pub struct GeoDatabase(Reader<Arc<[u8]>>);

impl GeoDatabase {
    /// Opens a database in memory, which the configuration has checked; `None` if it is invalid.
    pub fn new(bytes: Arc<[u8]>) -> Option<Self> {
        Reader::from_source(bytes).ok().map(Self)
    }

    /// The location of an address; empty if the database has none.
    pub fn lookup(&self, ip: IpAddr) -> ClientLocation {
        let Ok(found) = self.0.lookup(ip) else { return ClientLocation::default() };
        let country: Option<&str> = found.decode_path(&path!["country", "iso_code"]).ok().flatten();
        let degrees = |name: &'static str| -> Option<f64> {
            found.decode_path(&path!["location", name]).ok().flatten()
        };
        let location = degrees("latitude").zip(degrees("longitude"));
        ClientLocation {
            country: country.and_then(Country::parse),
            location: location.and_then(|(latitude, longitude)| Location::new(latitude, longitude)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_address_has_country_and_location() {
        let bytes: &[u8] = include_bytes!("../../tests/data/GeoIP2-City-Test.mmdb");
        let database = GeoDatabase::new(bytes.into()).expect("a database");
        let find = |ip: &str| database.lookup(ip.parse().expect("an address"));
        let london = find("81.2.69.160");
        assert_eq!(london.country, Country::parse("GB"));
        let at = london.location.expect("known");
        assert!((at.latitude - 51.5).abs() < 0.1 && at.longitude.abs() < 0.2, "{at:?}");
        assert_eq!(find("127.0.0.1"), ClientLocation::default());
        assert!(GeoDatabase::new(Arc::from(*b"no database")).is_none());
    }
}
