//! Steering by the client's location: the order of regions for a country or a coordinate.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Mean radius of the Earth.
const EARTH_RADIUS_KM: f64 = 6_371.0;

/// A country code of two letters (ISO 3166-1 alpha-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Country([u8; 2]);

impl Country {
    /// Parses two letters in upper or lower case.
    pub fn parse(text: &str) -> Option<Self> {
        match text.as_bytes() {
            &[a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                Some(Self([a.to_ascii_uppercase(), b.to_ascii_uppercase()]))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

/// A coordinate in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Location {
    /// North of the equator, -90 to 90.
    pub latitude: f64,
    /// East of Greenwich, -180 to 180.
    pub longitude: f64,
}

impl Location {
    /// `None` outside the valid ranges.
    pub fn new(latitude: f64, longitude: f64) -> Option<Self> {
        let is_place = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
        is_place.then_some(Self { latitude, longitude })
    }

    /// Great-circle distance in kilometres (haversine formula).
    pub fn distance_km(self, other: Self) -> f64 {
        let half_chord = |a: f64, b: f64| ((b - a).to_radians() / 2.0).sin().powi(2);
        let cosines = self.latitude.to_radians().cos() * other.latitude.to_radians().cos();
        let h = half_chord(self.latitude, other.latitude)
            + cosines * half_chord(self.longitude, other.longitude);
        2.0 * EARTH_RADIUS_KM * h.clamp(0.0, 1.0).sqrt().asin()
    }
}

/// The location of a client, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClientLocation {
    pub country: Option<Country>,
    /// Approximate coordinate of the client.
    pub location: Option<Location>,
}

/// The configured preference of regions by client location.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GeoSteering {
    /// The order of regions for clients of a country.
    pub regions_by_country: BTreeMap<Country, Vec<Arc<str>>>,
    /// Coordinates of regions, in the order of the file. Other clients prefer the nearest region.
    pub region_locations: Vec<(Arc<str>, Location)>,
}

impl GeoSteering {
    /// Whether the location of a client has no influence.
    pub fn is_empty(&self) -> bool {
        self.regions_by_country.is_empty() && self.region_locations.is_empty()
    }

    /// Every order of regions that a client can have, without duplicates. A client counts as
    /// located in its nearest region; exact distances would give an order for each client.
    pub fn region_orders(&self) -> Vec<Vec<Arc<str>>> {
        let mut orders: Vec<Vec<Arc<str>>> = Vec::new();
        let by_distance =
            self.region_locations.iter().map(|(_, location)| self.region_order_at(*location));
        for order in self.regions_by_country.values().cloned().chain(by_distance) {
            if !orders.contains(&order) {
                orders.push(order);
            }
        }
        orders
    }

    /// The order of regions for a client; `None` if its location has no influence.
    pub fn region_order_for(&self, client: &ClientLocation) -> Option<Vec<Arc<str>>> {
        let by_country =
            client.country.and_then(|country| self.regions_by_country.get(&country)).cloned();
        by_country.or_else(|| {
            let location = client.location?;
            let nearest = self.region_locations.iter().map(|(_, location)| *location);
            let nearest = nearest
                .min_by(|a, b| a.distance_km(location).total_cmp(&b.distance_km(location)))?;
            Some(self.region_order_at(nearest))
        })
    }

    fn region_order_at(&self, location: Location) -> Vec<Arc<str>> {
        let mut regions: Vec<&(Arc<str>, Location)> = self.region_locations.iter().collect();
        regions
            .sort_by(|(_, a), (_, b)| a.distance_km(location).total_cmp(&b.distance_km(location)));
        regions.into_iter().map(|(name, _)| Arc::clone(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(latitude: f64, longitude: f64) -> Location {
        Location::new(latitude, longitude).expect("a place")
    }

    fn geography() -> GeoSteering {
        let region =
            |name: &str, latitude, longitude| (Arc::from(name), location(latitude, longitude));
        let countries = [(Country::parse("ca").expect("two letters"), vec!["us-south".into()])];
        GeoSteering {
            regions_by_country: countries.into(),
            region_locations: vec![
                region("us-south", 32.8, -96.8),
                region("eu-de", 50.1, 8.7),
                region("jp-tok", 35.7, 139.7),
            ],
        }
    }

    #[test]
    fn distance_km_follows_the_great_circle() {
        let (london, sydney) = (location(51.5, -0.13), location(-33.87, 151.2));
        assert!((london.distance_km(sydney) - 16_994.0).abs() < 20.0);
        assert!(location(0.0, 179.9).distance_km(location(0.0, -179.9)) < 23.0);
        assert!(Location::new(91.0, 0.0).is_none() && Location::new(f64::NAN, 0.0).is_none());
    }

    #[test]
    fn configured_country_takes_precedence_over_distance() {
        let geography = geography();
        let at = |country: Option<&str>, location| {
            let country = country.and_then(Country::parse);
            let order = geography.region_order_for(&ClientLocation { country, location });
            order.map(|order| order.join(" "))
        };
        let london = Some(location(51.5, -0.13));
        assert_eq!(at(Some("GB"), london).as_deref(), Some("eu-de us-south jp-tok"));
        assert_eq!(at(Some("CA"), london).as_deref(), Some("us-south"));
        assert_eq!(
            at(None, Some(location(-33.9, 151.2))).as_deref(),
            Some("jp-tok eu-de us-south")
        );
        assert_eq!(at(Some("GB"), None), None);
        assert_eq!(geography.region_orders().len(), 4);
    }

    proptest::proptest! {
        #[test]
        fn every_client_order_is_among_the_region_orders(
            latitude in -90.0..90.0, longitude in -180.0..180.0,
        ) {
            let geography = geography();
            let location = Location::new(latitude, longitude);
            let client = ClientLocation { country: None, location };
            let order = geography.region_order_for(&client).expect("a location");
            proptest::prop_assert!(geography.region_orders().contains(&order));
        }
    }
}
