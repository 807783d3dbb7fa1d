//! The configuration of steering.

use std::sync::Arc;

use super::{ClientLocation, GeoSteering};

/// The steering of a pool (`steer`, `capacity` and `region` in the file).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SteeringConfig {
    pub policy: SteeringPolicy,
    /// The factor by which a tier may exceed its healthy share.
    pub overprovisioning: Overprovisioning,
    /// Capacity of an endpoint of weight one.
    pub endpoint_capacity: CapacityLimits,
    /// Capacity by region name.
    pub region_capacities: Vec<(Arc<str>, CapacityLimits)>,
    /// The preferred regions by client location.
    pub geography: GeoSteering,
    /// Further variants for some requests, besides that of the policy.
    pub extra_variants: Vec<SteeringVariant>,
}

/// A rule that orders zones into tiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SteeringVariant {
    /// The order of a policy.
    Policy(SteeringPolicy),
    /// These regions first; the others follow in the order of the file.
    RegionOrder(Vec<Arc<str>>),
}

impl SteeringConfig {
    /// All variants; the policy's is the first.
    pub fn variants(&self) -> impl Iterator<Item = SteeringVariant> + '_ {
        std::iter::once(SteeringVariant::Policy(self.policy))
            .chain(self.extra_variants.iter().cloned())
    }

    /// Whether a variant orders regions by latency.
    pub fn has_latency_variant(&self) -> bool {
        self.variants().any(|variant| variant == SteeringVariant::Policy(SteeringPolicy::Latency))
    }

    /// Adds a variant unless it exists.
    pub fn add_variant(&mut self, variant: SteeringVariant) {
        if !self.variants().any(|existing| existing == variant) {
            self.extra_variants.push(variant);
        }
    }

    /// The index in [`Self::variants`]; the policy's (0) for an unknown variant.
    pub fn variant_index(&self, variant: &SteeringVariant) -> usize {
        self.extra_variants.iter().position(|other| other == variant).map_or(0, |index| index + 1)
    }

    /// The index of the variant for a client's location.
    pub fn variant_index_for(&self, client: &ClientLocation) -> usize {
        let order = self.geography.region_order_for(client);
        order.map_or(0, |order| self.variant_index(&SteeringVariant::RegionOrder(order)))
    }

    /// The declared capacity of a region.
    pub fn region_capacity(&self, name: &str) -> CapacityLimits {
        let declared = self.region_capacities.iter().find(|(region, _)| **region == *name);
        declared.map(|(_, capacity)| *capacity).unwrap_or_default()
    }
}

/// The order of zones, and the division of traffic between zones of equal preference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SteeringPolicy {
    /// Own zone, own region, then region by region in the order of the file. Without `self`, zone
    /// by zone.
    #[default]
    Nearest,
    /// Zone by zone in the order of the file, whatever `self` is. Zones with [`ZoneRole::Active`]
    /// form the first tier.
    Failover,
    /// All zones at once by their own weights; the health of a zone limits its share.
    Weighted,
    /// Region by region, the one with the lowest latency first.
    Latency,
    /// All endpoints of all zones at once, by endpoint weight.
    Spread,
}

impl SteeringPolicy {
    pub const ALL: [Self; 5] =
        [Self::Nearest, Self::Failover, Self::Weighted, Self::Latency, Self::Spread];

    /// The word used in the file and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Failover => "failover",
            Self::Weighted => "weighted",
            Self::Latency => "latency",
            Self::Spread => "spread",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == word)
    }
}

/// The factor by which a tier may exceed its healthy share before it spills over, in hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overprovisioning(u32);

impl Overprovisioning {
    /// The valid range, in hundredths: below 1.0 a fully healthy tier could not carry its share.
    pub const HUNDREDTHS: std::ops::RangeInclusive<u32> = 100..=10_000;

    /// A valid factor; `None` outside [`Overprovisioning::HUNDREDTHS`].
    pub fn new(hundredths: u32) -> Option<Self> {
        Self::HUNDREDTHS.contains(&hundredths).then_some(Self(hundredths))
    }

    pub fn hundredths(self) -> u32 {
        self.0
    }
}

impl Default for Overprovisioning {
    /// 1.4, the default of Envoy.
    fn default() -> Self {
        Self(140)
    }
}

/// The declared capacity of an endpoint, a zone or a region; `None` means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapacityLimits {
    pub requests: Option<u32>,
    pub rate_rps: Option<u32>,
}

impl CapacityLimits {
    /// Whether a limit is declared.
    pub fn is_stated(&self) -> bool {
        self.requests.is_some() || self.rate_rps.is_some()
    }
}

/// The position of a zone in the order of tiers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZoneRole {
    /// As the policy orders it.
    #[default]
    Ordered,
    /// Together with all other active zones; under [`SteeringPolicy::Failover`] they are one tier.
    Active,
    /// After all other zones, in the order of the file.
    Standby,
}

/// The settings of a zone besides its endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneSettings {
    /// The share under [`SteeringPolicy::Weighted`].
    pub weight: u32,
    pub role: ZoneRole,
    /// Number of serving endpoints that the zone needs before it receives traffic, unless no other
    /// zone can serve. Protects a pilot-light zone while it scales up.
    pub min_capacity: u32,
    /// Capacity of all its endpoints together.
    pub capacity: CapacityLimits,
}

impl Default for ZoneSettings {
    fn default() -> Self {
        Self {
            weight: 1,
            role: ZoneRole::Ordered,
            min_capacity: 0,
            capacity: CapacityLimits::default(),
        }
    }
}
