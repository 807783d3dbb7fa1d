//! One timer for all requests that wait at a worker: with one of the runtime's for each, nearly every
//! request would set it and strike it out again, and hardly any would hear it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

/// Rings for all who wait are at least this far apart for each of them: a hundred thousand that wait
/// cost a few per cent of a core, and are rung for some milliseconds late.
const APART_EACH: Duration = Duration::from_nanos(64);

/// The clock of one worker.
#[derive(Debug, Default)]
pub struct Clock {
    places: RefCell<Places>,
    /// When it looks next who is due.
    set_for: Cell<Option<Instant>>,
    keeper: RefCell<Option<Waker>>,
}

#[derive(Debug, Default)]
struct Places {
    all: Vec<Place>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Place {
    due: Instant,
    /// `None` if nobody is here.
    waker: Option<Waker>,
    has_rung: bool,
}

/// Rings at its time for who polls it.
#[derive(Debug)]
pub struct Bell<'a> {
    clock: &'a Clock,
    due: Instant,
    place: Option<usize>,
}

impl Clock {
    /// A bell that rings at `due`.
    #[must_use]
    pub fn bell(&self, due: Instant) -> Bell<'_> {
        Bell { clock: self, due, place: None }
    }

    /// Has everybody who waits look again, whatever the time.
    pub fn wake_all(&self) {
        self.places
            .borrow()
            .all
            .iter()
            .filter_map(|p| p.waker.as_ref())
            .for_each(Waker::wake_by_ref);
    }

    /// Keeps the clock going; never ends.
    pub async fn keep(&self) {
        let mut sleep = pin!(sleep_until(Instant::now().into()));
        poll_fn(|cx| {
            let mut keeper = self.keeper.borrow_mut();
            if !keeper.as_ref().is_some_and(|keeper| keeper.will_wake(cx.waker())) {
                *keeper = Some(cx.waker().clone());
            }
            loop {
                let Some(due) = self.set_for.get() else { return Poll::<()>::Pending };
                if sleep.deadline().into_std() != due {
                    sleep.as_mut().reset(due.into());
                }
                ready!(sleep.as_mut().poll(cx));
                self.set_for.set(self.ring(Instant::now()));
            }
        })
        .await;
    }

    /// Rings for all who are due; when to do so again.
    fn ring(&self, now: Instant) -> Option<Instant> {
        let mut places = self.places.borrow_mut();
        let mut next: Option<Instant> = None;
        let mut count = 0;
        for place in &mut places.all {
            let Some(waker) = place.waker.as_ref().filter(|_| !place.has_rung) else { continue };
            count += 1;
            if place.due <= now {
                place.has_rung = true;
                waker.wake_by_ref();
            } else {
                next = Some(next.map_or(place.due, |next| next.min(place.due)));
            }
        }
        next.map(|next| next.max(now + APART_EACH * count))
    }

    /// Somebody is due at `due`, perhaps before all others.
    fn hear(&self, due: Instant) {
        if self.set_for.get().is_none_or(|set_for| due < set_for) {
            self.set_for.set(Some(due));
            if let Some(keeper) = &*self.keeper.borrow() {
                keeper.wake_by_ref();
            }
        }
    }
}

impl Bell<'_> {
    /// Whether it has rung; the waker hears when it does.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let places = &mut *self.clock.places.borrow_mut();
        let Some(place) = self.place else {
            let waker = Some(cx.waker().clone());
            let place = Place { due: self.due, waker, has_rung: false };
            self.place = Some(match places.free.pop() {
                Some(index) => {
                    places.all[index] = place;
                    index
                }
                None => {
                    places.all.push(place);
                    places.all.len() - 1
                }
            });
            self.clock.hear(self.due);
            return Poll::Pending;
        };
        let place = &mut places.all[place];
        if place.has_rung {
            return Poll::Ready(());
        }
        if !place.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            place.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Has it ring at `due` instead, for the first time or again.
    pub fn reset(&mut self, due: Instant) {
        self.due = due;
        if let Some(place) = self.place {
            let place = &mut self.clock.places.borrow_mut().all[place];
            (place.due, place.has_rung) = (due, false);
            self.clock.hear(due);
        }
    }
}

impl Drop for Bell<'_> {
    fn drop(&mut self) {
        if let Some(index) = self.place {
            let mut places = self.clock.places.borrow_mut();
            places.all[index].waker = None;
            places.free.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::task::LocalSet;

    use super::*;

    /// Nothing here takes as long.
    const LONG: Duration = Duration::from_secs(60);

    async fn with_clock<F: Future>(test: impl FnOnce(Rc<Clock>) -> F) {
        let clock = Rc::new(Clock::default());
        let kept = Rc::clone(&clock);
        let local = LocalSet::new();
        local.spawn_local(async move { kept.keep().await });
        local.run_until(test(clock)).await;
    }

    #[tokio::test]
    async fn each_hears_its_own_time() {
        with_clock(|clock| async move {
            let (began, ms) = (Instant::now(), Duration::from_millis);
            let waits = [30, 10, 20, 10, 500].map(|wait| {
                let clock = Rc::clone(&clock);
                tokio::task::spawn_local(async move {
                    let mut bell = clock.bell(began + ms(wait));
                    poll_fn(|cx| bell.poll(cx)).await;
                    (wait, Instant::now() - began)
                })
            });
            for wait in waits {
                let (asked, waited) = wait.await.expect("rung");
                assert!((ms(asked)..LONG).contains(&waited), "{asked} {waited:?}");
            }
            assert_eq!(clock.places.borrow().free.len(), 5, "all places are given back");
        })
        .await;
    }

    #[tokio::test]
    async fn a_bell_that_was_reset_rings_then_and_again() {
        with_clock(|clock| async move {
            let (began, ms) = (Instant::now(), Duration::from_millis);
            let mut bell = clock.bell(began + ms(10));
            poll_fn(|cx| bell.poll(cx)).await;
            assert!(Instant::now() - began >= ms(10));
            bell.reset(began + ms(50));
            poll_fn(|cx| bell.poll(cx)).await;
            assert!(Instant::now() - began >= ms(50));
            // An earlier one than the clock is set for.
            let mut late = clock.bell(began + LONG);
            assert!(poll_fn(|cx| Poll::Ready(late.poll(cx))).await.is_pending());
            bell.reset(began + ms(60));
            poll_fn(|cx| bell.poll(cx)).await;
            assert!(Instant::now() - began < LONG);
        })
        .await;
    }

    #[tokio::test]
    async fn all_look_when_they_are_told_to() {
        with_clock(|clock| async move {
            let looks = Cell::new(0);
            let mut bell = clock.bell(Instant::now() + LONG);
            let waiting = poll_fn(|cx| {
                looks.set(looks.get() + 1);
                let _ = bell.poll(cx);
                if looks.get() == 2 { Poll::Ready(()) } else { Poll::Pending }
            });
            let telling = async {
                while looks.get() == 0 {
                    tokio::task::yield_now().await;
                }
                clock.wake_all();
            };
            tokio::join!(waiting, telling);
        })
        .await;
    }
}
