//! Endpoints by due time: a timing wheel (G. Varghese and A. Lauck, *Hashed and Hierarchical Timing
//! Wheels*, 1987).
//!
//! In a heap of a hundred thousand entries every step of an insertion misses the cache. Here an
//! entry is appended to the slot of its time, and sorted when that time has come, together with the
//! few that share the slot. Times stay exact.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use crate::logic::model::id::EndpointId;

/// A tick is two to this power of nanoseconds: about a millisecond.
const TICK_BITS: u32 = 20;

/// Ticks in one turn of the wheel, which takes more than four seconds.
const WHEEL_SLOTS: u64 = 4_096;

/// Endpoints by due time.
#[derive(Debug)]
pub(crate) struct TimingWheel {
    epoch: Instant,
    /// The current tick.
    tick: u64,
    /// Entries that were due in it when it began, the first last.
    current: Vec<WheelEntry>,
    /// Entries that were inserted since and are due in it, or before.
    overdue: BinaryHeap<Reverse<WheelEntry>>,
    /// Entries that are due less than a turn after it, by tick; each slot is used once in a turn.
    slots: Vec<WheelSlot>,
    slotted_entries: usize,
    /// Entries that are due later, by turn.
    overflow: BTreeMap<u64, WheelSlot>,
}

/// Nanoseconds since the epoch, and the endpoint: one number, because entries are compared often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct WheelEntry(u128);

/// Entries in the order of their insertion.
#[derive(Debug, Default)]
struct WheelSlot {
    first: Option<u64>,
    entries: Vec<WheelEntry>,
}

impl TimingWheel {
    /// An empty wheel; nothing in it is due before `epoch`.
    pub(crate) fn new(epoch: Instant) -> Self {
        let ring = (0..WHEEL_SLOTS).map(|_| WheelSlot::default()).collect();
        let (near, late, far) = (Vec::new(), BinaryHeap::new(), BTreeMap::new());
        Self {
            epoch,
            tick: 0,
            current: near,
            overdue: late,
            slots: ring,
            slotted_entries: 0,
            overflow: far,
        }
    }

    pub(crate) fn insert(&mut self, due: Instant, id: EndpointId) {
        self.insert_entry(WheelEntry::new(self.ns(due), id));
    }

    /// Removes the first entry, if it is due by `now`.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(Instant, EndpointId)> {
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
        if self.current.last() == Some(&first) {
            self.current.pop();
        } else {
            self.overdue.pop();
        }
        Some((self.at(first.ns()), first.id()))
    }

    /// The first entry of the current tick.
    fn first(&self) -> Option<WheelEntry> {
        let late = self.overdue.peek().map(|&Reverse(late)| late);
        match (self.current.last(), late) {
            (Some(&near), Some(late)) => Some(near.min(late)),
            (near, late) => near.copied().or(late),
        }
    }

    /// When the first entry is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let first = match self.first() {
            Some(first) => Some(first.ns()),
            None => {
                let far = self.overflow.first_key_value().and_then(|(_, slot)| slot.first);
                [self.first_slotted_ns(), far].into_iter().flatten().min()
            }
        };
        first.map(|ns| self.at(ns))
    }

    fn first_slotted_ns(&self) -> Option<u64> {
        if self.slotted_entries == 0 {
            return None;
        }
        (1..WHEEL_SLOTS).find_map(|ahead| self.slots[slot_index(self.tick + ahead)].first)
    }

    fn insert_entry(&mut self, entry: WheelEntry) {
        let tick = entry.ns() >> TICK_BITS;
        if tick <= self.tick {
            self.overdue.push(Reverse(entry));
        } else if tick - self.tick < WHEEL_SLOTS {
            self.slots[slot_index(tick)].push(entry);
            self.slotted_entries += 1;
        } else {
            self.overflow.entry(tick / WHEEL_SLOTS).or_default().push(entry);
        }
    }

    /// Advances by one tick, or over all that are empty, but not beyond `target_tick`.
    fn advance(&mut self, target_tick: u64) {
        if self.slotted_entries == 0 {
            let turn = self.overflow.first_key_value().map(|(turn, _)| turn * WHEEL_SLOTS - 1);
            self.tick = turn.map_or(target_tick, |before| target_tick.min(before.max(self.tick)));
            if self.tick == target_tick {
                return;
            }
        }
        self.tick += 1;
        let slot = std::mem::take(&mut self.slots[slot_index(self.tick)]);
        self.slotted_entries -= slot.entries.len();
        self.current = slot.entries;
        self.current.sort_unstable_by(|a, b| b.cmp(a));
        if self.tick.is_multiple_of(WHEEL_SLOTS)
            && let Some(turn) = self.overflow.remove(&(self.tick / WHEEL_SLOTS))
        {
            turn.entries.into_iter().for_each(|due| self.insert_entry(due));
        }
    }

    fn ns(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    fn at(&self, ns: u64) -> Instant {
        self.epoch + Duration::from_nanos(ns)
    }
}

impl WheelEntry {
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

impl WheelSlot {
    fn push(&mut self, due: WheelEntry) {
        let ns = due.ns();
        self.first = Some(self.first.map_or(ns, |first| first.min(ns)));
        self.entries.push(due);
    }
}

fn slot_index(tick: u64) -> usize {
    (tick % WHEEL_SLOTS) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// An entry this long after the present, or the present moved on by this much.
    #[derive(Clone, Copy, Debug)]
    enum WheelOperation {
        Add { after_us: u64 },
        AddOverdue { before_us: u64 },
        Pass { us: u64 },
    }

    fn wheel_operation() -> impl Strategy<Value = WheelOperation> {
        prop_oneof![
            (0..3_000u64).prop_map(|after_us| WheelOperation::Add { after_us }),
            (0..20_000_000u64).prop_map(|after_us| WheelOperation::Add { after_us }),
            (0..3_000u64).prop_map(|before_us| WheelOperation::AddOverdue { before_us }),
            (0..2_000u64).prop_map(|us| WheelOperation::Pass { us }),
            (0..12_000_000u64).prop_map(|us| WheelOperation::Pass { us }),
        ]
    }

    proptest! {
        #[test]
        fn wheel_pops_in_the_order_of_a_sorted_set(steps in prop::collection::vec(wheel_operation(), 1..200)) {
            let epoch = Instant::now();
            let mut now = epoch;
            let mut wheel = TimingWheel::new(epoch);
            let mut sorted = BTreeSet::new();
            for (step, slot) in steps.into_iter().zip(0u32..) {
                let id = EndpointId::new(slot, 7);
                let due = match step {
                    WheelOperation::Add { after_us } => now + Duration::from_micros(after_us),
                    WheelOperation::AddOverdue { before_us } => {
                        epoch.max(now.checked_sub(Duration::from_micros(before_us)).unwrap_or(epoch))
                    }
                    WheelOperation::Pass { us } => {
                        now += Duration::from_micros(us);
                        while let Some(popped) = wheel.pop(now) {
                            prop_assert_eq!(Some(popped), sorted.pop_first());
                        }
                        prop_assert!(sorted.first().is_none_or(|&(due, _)| due > now));
                        prop_assert_eq!(wheel.next_due(), sorted.first().map(|&(due, _)| due));
                        continue;
                    }
                };
                wheel.insert(due, id);
                sorted.insert((due, id));
                prop_assert_eq!(wheel.next_due(), sorted.first().map(|&(due, _)| due));
            }
        }
    }

    #[test]
    fn wheel_after_a_century_pops_without_full_scan() {
        let epoch = Instant::now();
        let mut wheel = TimingWheel::new(epoch);
        let year = Duration::from_secs(365 * 24 * 3_600);
        let id = EndpointId::new(1, 0);
        wheel.insert(epoch + 100 * year, id);
        assert_eq!(wheel.pop(epoch + 99 * year), None);
        assert_eq!(wheel.next_due(), Some(epoch + 100 * year));
        assert_eq!(wheel.pop(epoch + 100 * year), Some((epoch + 100 * year, id)));
        assert_eq!(wheel.next_due(), None);
    }
}
