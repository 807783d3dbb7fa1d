//! One runtime timer for all waiting requests of a worker.
//!
//! With a runtime timer each, nearly every request would insert and remove one, and hardly any
//! would expire.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

/// Minimum interval of scans, for each waiting request. A hundred thousand of them cost a few per
/// cent of a core and are woken some milliseconds late.
const SPACING_PER_TIMER: Duration = Duration::from_nanos(64);

/// The timers of one worker.
#[derive(Debug, Default)]
pub struct TimerQueue {
    slots: RefCell<TimerSlots>,
    /// When the driver scans next.
    armed_for: Cell<Option<Instant>>,
    driver_waker: RefCell<Option<Waker>>,
}

#[derive(Debug, Default)]
struct TimerSlots {
    all: Vec<TimerSlot>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct TimerSlot {
    due: Instant,
    /// `None` for a free slot.
    waker: Option<Waker>,
    has_fired: bool,
}

/// A timer that wakes the task that polls it.
#[derive(Debug)]
pub struct TimerHandle<'a> {
    queue: &'a TimerQueue,
    due: Instant,
    slot: Option<usize>,
}

impl TimerQueue {
    /// A timer that expires at `due`.
    pub fn timer_at(&self, due: Instant) -> TimerHandle<'_> {
        TimerHandle { queue: self, due, slot: None }
    }

    /// Wakes all waiting requests, whatever the time.
    pub fn wake_all(&self) {
        self.slots
            .borrow()
            .all
            .iter()
            .filter_map(|slot| slot.waker.as_ref())
            .for_each(Waker::wake_by_ref);
    }

    /// Drives the timers; never returns.
    pub async fn run(&self) {
        let mut sleep = pin!(sleep_until(Instant::now().into()));
        poll_fn(|cx| {
            let mut driver_waker = self.driver_waker.borrow_mut();
            if !driver_waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *driver_waker = Some(cx.waker().clone());
            }
            loop {
                let Some(due) = self.armed_for.get() else { return Poll::<()>::Pending };
                if sleep.deadline().into_std() != due {
                    sleep.as_mut().reset(due.into());
                }
                ready!(sleep.as_mut().poll(cx));
                self.armed_for.set(self.fire_due(Instant::now()));
            }
        })
        .await;
    }

    /// Wakes the requests whose timers have expired. Returns when to scan next.
    fn fire_due(&self, now: Instant) -> Option<Instant> {
        let mut slots = self.slots.borrow_mut();
        let mut next: Option<Instant> = None;
        let mut count = 0;
        for slot in &mut slots.all {
            let Some(waker) = slot.waker.as_ref().filter(|_| !slot.has_fired) else { continue };
            count += 1;
            if slot.due <= now {
                slot.has_fired = true;
                waker.wake_by_ref();
            } else {
                next = Some(next.map_or(slot.due, |next| next.min(slot.due)));
            }
        }
        next.map(|next| next.max(now + SPACING_PER_TIMER * count))
    }

    /// Wakes the driver if `due` is before its next scan.
    fn schedule(&self, due: Instant) {
        if self.armed_for.get().is_none_or(|armed_for| due < armed_for) {
            self.armed_for.set(Some(due));
            if let Some(driver_waker) = &*self.driver_waker.borrow() {
                driver_waker.wake_by_ref();
            }
        }
    }
}

impl TimerHandle<'_> {
    /// Ready once the timer has expired; wakes the task then.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let slots = &mut *self.queue.slots.borrow_mut();
        let Some(slot) = self.slot else {
            let waker = Some(cx.waker().clone());
            let slot = TimerSlot { due: self.due, waker, has_fired: false };
            self.slot = Some(match slots.free.pop() {
                Some(index) => {
                    slots.all[index] = slot;
                    index
                }
                None => {
                    slots.all.push(slot);
                    slots.all.len() - 1
                }
            });
            self.queue.schedule(self.due);
            return Poll::Pending;
        };
        let slot = &mut slots.all[slot];
        if slot.has_fired {
            return Poll::Ready(());
        }
        if !slot.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            slot.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Sets the timer to `due`, whether it has expired or not.
    pub fn reset(&mut self, due: Instant) {
        self.due = due;
        if let Some(slot) = self.slot {
            let slot = &mut self.queue.slots.borrow_mut().all[slot];
            (slot.due, slot.has_fired) = (due, false);
            self.queue.schedule(due);
        }
    }
}

impl Drop for TimerHandle<'_> {
    fn drop(&mut self) {
        if let Some(index) = self.slot {
            let mut slots = self.queue.slots.borrow_mut();
            slots.all[index].waker = None;
            slots.free.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::task::LocalSet;

    use super::*;

    /// Longer than the test takes.
    const LONG: Duration = Duration::from_secs(60);

    async fn with_timer_queue<F: Future>(test: impl FnOnce(Rc<TimerQueue>) -> F) {
        let queue = Rc::new(TimerQueue::default());
        let driver = Rc::clone(&queue);
        let local = LocalSet::new();
        local.spawn_local(async move { driver.run().await });
        local.run_until(test(queue)).await;
    }

    #[tokio::test]
    async fn each_timer_fires_at_its_own_time() {
        with_timer_queue(|queue| async move {
            let (began, ms) = (Instant::now(), Duration::from_millis);
            let waits = [30, 10, 20, 10, 500].map(|wait| {
                let queue = Rc::clone(&queue);
                tokio::task::spawn_local(async move {
                    let mut timer = queue.timer_at(began + ms(wait));
                    poll_fn(|cx| timer.poll(cx)).await;
                    (wait, Instant::now() - began)
                })
            });
            for wait in waits {
                let (wanted, waited) = wait.await.expect("fired");
                assert!((ms(wanted)..LONG).contains(&waited), "{wanted} {waited:?}");
            }
            assert_eq!(queue.slots.borrow().free.len(), 5, "all slots are free again");
        })
        .await;
    }

    #[tokio::test]
    async fn reset_timer_fires_again_at_the_new_time() {
        with_timer_queue(|queue| async move {
            let (began, ms) = (Instant::now(), Duration::from_millis);
            let mut timer = queue.timer_at(began + ms(10));
            poll_fn(|cx| timer.poll(cx)).await;
            assert!(Instant::now() - began >= ms(10));
            timer.reset(began + ms(50));
            poll_fn(|cx| timer.poll(cx)).await;
            assert!(Instant::now() - began >= ms(50));
            // Before the time that the driver is armed for.
            let mut late = queue.timer_at(began + LONG);
            assert!(poll_fn(|cx| Poll::Ready(late.poll(cx))).await.is_pending());
            timer.reset(began + ms(60));
            poll_fn(|cx| timer.poll(cx)).await;
            assert!(Instant::now() - began < LONG);
        })
        .await;
    }

    #[tokio::test]
    async fn wake_all_wakes_every_waiter() {
        with_timer_queue(|queue| async move {
            let polls = Cell::new(0);
            let mut timer = queue.timer_at(Instant::now() + LONG);
            let waiting = poll_fn(|cx| {
                polls.set(polls.get() + 1);
                let _ = timer.poll(cx);
                if polls.get() == 2 { Poll::Ready(()) } else { Poll::Pending }
            });
            let waking = async {
                while polls.get() == 0 {
                    tokio::task::yield_now().await;
                }
                queue.wake_all();
            };
            tokio::join!(waiting, waking);
        })
        .await;
    }
}
