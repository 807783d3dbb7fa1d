//! Who is due when: a timing wheel (G. Varghese and A. Lauck, *Hashed and Hierarchical Timing
//! Wheels*, 1987).
//!
//! With a hundred thousand entries every step of a heap waits for memory, and it takes many steps
//! to find an entry its place. Here an entry is appended to the slot of its time, and put in order
//! when that time has come, together with the few that share the slot. Times stay exact.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use crate::logic::id::EndpointId;

/// A tick is so many times halved until it is a nanosecond: about a millisecond.
const TICK_BITS: u32 = 20;

/// Ticks in a turn of the wheel: more than four seconds.
const TURN: u64 = 4_096;

/// Endpoints by when they are due.
#[derive(Debug)]
pub(super) struct Wheel {
    epoch: Instant,
    /// The tick that has come.
    tick: u64,
    /// What was due in it when it came, the first last.
    near: Vec<Due>,
    /// What has since been found to be due in it, or before.
    late: BinaryHeap<Reverse<Due>>,
    /// What is due in less than a turn after it, by tick; each place serves once in every turn.
    ring: Vec<Slot>,
    in_ring: usize,
    /// What is due later, by turn.
    far: BTreeMap<u64, Slot>,
}

/// When, in nanoseconds since the epoch, and who: one number, because it is compared so often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due(u128);

/// Entries in the order in which they came.
#[derive(Debug, Default)]
struct Slot {
    first: Option<u64>,
    entries: Vec<Due>,
}

impl Wheel {
    /// An empty one; nothing in it is due before `epoch`.
    pub(super) fn new(epoch: Instant) -> Self {
        let ring = (0..TURN).map(|_| Slot::default()).collect();
        let (near, late, far) = (Vec::new(), BinaryHeap::new(), BTreeMap::new());
        Self { epoch, tick: 0, near, late, ring, in_ring: 0, far }
    }

    pub(super) fn add(&mut self, due: Instant, id: EndpointId) {
        self.put(Due::new(self.ns(due), id));
    }

    /// Takes out the first, if it is due by `now`.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Instant, EndpointId)> {
        let now_ns = self.ns(now);
        let first = loop {
            match self.first() {
                Some(first) => break first,
                None if self.tick >= now_ns >> TICK_BITS => return None,
                None => self.advance(now_ns >> TICK_BITS),
            }
        };
        if first.ns() > now_ns {
            return None;
        }
        if self.near.last() == Some(&first) {
            self.near.pop();
        } else {
            self.late.pop();
        }
        Some((self.at(first.ns()), first.id()))
    }

    /// The first of the tick that has come.
    fn first(&self) -> Option<Due> {
        let late = self.late.peek().map(|&Reverse(late)| late);
        match (self.near.last(), late) {
            (Some(&near), Some(late)) => Some(near.min(late)),
            (near, late) => near.copied().or(late),
        }
    }

    /// When the first is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let first = match self.first() {
            Some(first) => Some(first.ns()),
            None => {
                let far = self.far.first_key_value().and_then(|(_, slot)| slot.first);
                [self.first_in_ring(), far].into_iter().flatten().min()
            }
        };
        first.map(|ns| self.at(ns))
    }

    fn first_in_ring(&self) -> Option<u64> {
        if self.in_ring == 0 {
            return None;
        }
        (1..TURN).find_map(|ahead| self.ring[place(self.tick + ahead)].first)
    }

    fn put(&mut self, due: Due) {
        let tick = due.ns() >> TICK_BITS;
        if tick <= self.tick {
            self.late.push(Reverse(due));
        } else if tick - self.tick < TURN {
            self.ring[place(tick)].push(due);
            self.in_ring += 1;
        } else {
            self.far.entry(tick / TURN).or_default().push(due);
        }
    }

    /// Turns on by a tick, or over as many as there is nothing in, but not beyond `upto`.
    fn advance(&mut self, upto: u64) {
        if self.in_ring == 0 {
            let turn = self.far.first_key_value().map(|(turn, _)| turn * TURN - 1);
            self.tick = turn.map_or(upto, |before| upto.min(before.max(self.tick)));
            if self.tick == upto {
                return;
            }
        }
        self.tick += 1;
        let slot = std::mem::take(&mut self.ring[place(self.tick)]);
        self.in_ring -= slot.entries.len();
        self.near = slot.entries;
        self.near.sort_unstable_by(|a, b| b.cmp(a));
        if self.tick.is_multiple_of(TURN)
            && let Some(turn) = self.far.remove(&(self.tick / TURN))
        {
            turn.entries.into_iter().for_each(|due| self.put(due));
        }
    }

    fn ns(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    fn at(&self, ns: u64) -> Instant {
        self.epoch + Duration::from_nanos(ns)
    }
}

impl Due {
    fn new(ns: u64, id: EndpointId) -> Self {
        let id = u128::from(id.slot) << 32 | u128::from(id.generation);
        Self(u128::from(ns) << 64 | id)
    }

    fn ns(self) -> u64 {
        (self.0 >> 64) as u64
    }

    fn id(self) -> EndpointId {
        EndpointId::new((self.0 >> 32) as u32, self.0 as u32)
    }
}

impl Slot {
    fn push(&mut self, due: Due) {
        let ns = due.ns();
        self.first = Some(self.first.map_or(ns, |first| first.min(ns)));
        self.entries.push(due);
    }
}

fn place(tick: u64) -> usize {
    (tick % TURN) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// An entry so long after the present, or the present moved on by so much; in microseconds.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Add { after_us: u64 },
        AddOverdue { before_us: u64 },
        Pass { us: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3_000u64).prop_map(|after_us| Step::Add { after_us }),
            (0..20_000_000u64).prop_map(|after_us| Step::Add { after_us }),
            (0..3_000u64).prop_map(|before_us| Step::AddOverdue { before_us }),
            (0..2_000u64).prop_map(|us| Step::Pass { us }),
            (0..12_000_000u64).prop_map(|us| Step::Pass { us }),
        ]
    }

    proptest! {
        #[test]
        fn it_gives_what_a_sorted_set_gives(steps in prop::collection::vec(step(), 1..200)) {
            let epoch = Instant::now();
            let mut now = epoch;
            let mut wheel = Wheel::new(epoch);
            let mut sorted = BTreeSet::new();
            for (step, slot) in steps.into_iter().zip(0u32..) {
                let id = EndpointId::new(slot, 7);
                let due = match step {
                    Step::Add { after_us } => now + Duration::from_micros(after_us),
                    Step::AddOverdue { before_us } => {
                        epoch.max(now.checked_sub(Duration::from_micros(before_us)).unwrap_or(epoch))
                    }
                    Step::Pass { us } => {
                        now += Duration::from_micros(us);
                        while let Some(popped) = wheel.pop(now) {
                            prop_assert_eq!(Some(popped), sorted.pop_first());
                        }
                        prop_assert!(sorted.first().is_none_or(|&(due, _)| due > now));
                        prop_assert_eq!(wheel.due(), sorted.first().map(|&(due, _)| due));
                        continue;
                    }
                };
                wheel.add(due, id);
                sorted.insert((due, id));
                prop_assert_eq!(wheel.due(), sorted.first().map(|&(due, _)| due));
            }
        }
    }

    #[test]
    fn a_long_rest_costs_no_more_than_a_turn() {
        let epoch = Instant::now();
        let mut wheel = Wheel::new(epoch);
        let year = Duration::from_secs(365 * 24 * 3_600);
        let id = EndpointId::new(1, 0);
        wheel.add(epoch + 100 * year, id);
        assert_eq!(wheel.pop(epoch + 99 * year), None);
        assert_eq!(wheel.due(), Some(epoch + 100 * year));
        assert_eq!(wheel.pop(epoch + 100 * year), Some((epoch + 100 * year, id)));
        assert_eq!(wheel.due(), None);
    }
}
