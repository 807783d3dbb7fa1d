//! How an operator wants a pool's traffic led.

use std::sync::Arc;

use super::{ClientLocation, GeoSteering};

/// How a pool's traffic is led (`steer`, `capacity` and `region` in the file).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SteeringConfig {
    /// Which zones come first.
    pub policy: SteeringPolicy,
    /// How much more than its healthy share a tier carries.
    pub overprovisioning: Overprovisioning,
    /// What an endpoint of weight one can take.
    pub endpoint_capacity: CapacityLimits,
    /// What a region can take, by its name.
    pub region_capacities: Vec<(Arc<str>, CapacityLimits)>,
    /// Which regions are first for whom.
    pub geography: GeoSteering,
    /// Ways that some requests are led, besides that of the policy.
    pub extra_variants: Vec<SteeringVariant>,
}

/// One way that requests may be led.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SteeringVariant {
    /// As the policy has it.
    Policy(SteeringPolicy),
    /// These regions first; the others follow in the order of the file.
    RegionOrder(Vec<Arc<str>>),
}

impl SteeringConfig {
    /// Every way, that of the policy first.
    pub fn variants(&self) -> impl Iterator<Item = SteeringVariant> + '_ {
        std::iter::once(SteeringVariant::Policy(self.policy))
            .chain(self.extra_variants.iter().cloned())
    }

    /// Whether any requests are led by how soon regions answer.
    pub fn has_latency_variant(&self) -> bool {
        self.variants().any(|way| way == SteeringVariant::Policy(SteeringPolicy::Latency))
    }

    /// Has requests led this way too.
    pub fn add_variant(&mut self, variant: SteeringVariant) {
        if !self.variants().any(|known| known == variant) {
            self.extra_variants.push(variant);
        }
    }

    /// Which of [`Steer::ways`] it is: the policy's, if it is none of them.
    pub fn variant_index(&self, variant: &SteeringVariant) -> usize {
        self.extra_variants.iter().position(|other| other == variant).map_or(0, |at| at + 1)
    }

    /// Which way a client's requests are led.
    pub fn variant_index_for(&self, client: &ClientLocation) -> usize {
        let order = self.geography.region_order_for(client);
        order.map_or(0, |order| self.variant_index(&SteeringVariant::RegionOrder(order)))
    }

    /// What the region can take.
    pub fn region_capacity(&self, name: &str) -> CapacityLimits {
        let stated = self.region_capacities.iter().find(|(region, _)| **region == *name);
        stated.map(|(_, capacity)| *capacity).unwrap_or_default()
    }
}

/// Which zones come first, and how those that are equally near divide their traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SteeringPolicy {
    /// Own zone, own region, then region by region in the order of the file; without a `self` zone
    /// by zone.
    #[default]
    Nearest,
    /// Zone by zone in the order of the file, wherever this instance stands; zones that are
    /// [`Role::Active`] come first, together.
    Failover,
    /// All zones at once, each by its own weight, of which it keeps what its health carries.
    Weighted,
    /// Region by region, the one that answers soonest first.
    Latency,
    /// All endpoints of all zones at once, each by its weight.
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

/// A tier carries this many times its healthy share before it spills, in hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overprovisioning(u32);

impl Overprovisioning {
    /// Least and most, in hundredths: below one a tier could not even carry what is whole.
    pub const HUNDREDTHS: std::ops::RangeInclusive<u32> = 100..=10_000;

    /// `None` outside of [`Overprovisioning::HUNDREDTHS`].
    pub fn new(hundredths: u32) -> Option<Self> {
        Self::HUNDREDTHS.contains(&hundredths).then_some(Self(hundredths))
    }

    pub fn hundredths(self) -> u32 {
        self.0
    }
}

impl Default for Overprovisioning {
    /// 1.4, as Envoy has it.
    fn default() -> Self {
        Self(140)
    }
}

/// What something can take; absent, nobody has said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapacityLimits {
    pub requests: Option<u32>,
    pub rate_rps: Option<u32>,
}

impl CapacityLimits {
    /// Whether anything is said.
    pub fn is_stated(&self) -> bool {
        self.requests.is_some() || self.rate_rps.is_some()
    }
}

/// When a zone is to serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZoneRole {
    /// As the policy has it.
    #[default]
    Ordered,
    /// With all others that are active; under [`Policy::Failover`] they are one tier.
    Active,
    /// After all others, in the order of the file.
    Standby,
}

/// What is said of a zone beside its endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneSettings {
    /// Its share under [`Policy::Weighted`].
    pub weight: u32,
    /// When it is to serve.
    pub role: ZoneRole,
    /// So many of its endpoints must be able to serve before it gets any traffic, unless nobody
    /// else can: a pilot light that has yet to grow.
    pub min_capacity: u32,
    /// What it can take with all of its endpoints.
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
