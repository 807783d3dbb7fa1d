//! Answers that are on their way for long, and are woken when they have to end.

use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};

/// Who waits for more of an answer of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Lasting {
    places: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
    ends: Cell<u64>,
}

/// A place among those who wait; to be given back by [`Lasting::leave`].
#[derive(Debug)]
pub(super) struct Place(usize);

impl Lasting {
    /// Has been ended so often.
    pub(super) fn ends(&self) -> u64 {
        self.ends.get()
    }

    /// Whoever is here now has to end.
    pub(super) fn end(&self) {
        self.ends.update(|ends| ends + 1);
        // They leave when they are polled, not here.
        self.places.borrow().iter().flatten().for_each(Waker::wake_by_ref);
    }

    /// Waits, in a place that it has already or in a new one.
    pub(super) fn wait(&self, place: &mut Option<Place>, cx: &Context<'_>) {
        let mut places = self.places.borrow_mut();
        let waker = cx.waker();
        match place {
            Some(Place(place)) => {
                if !places[*place].as_ref().is_some_and(|known| known.will_wake(waker)) {
                    places[*place] = Some(waker.clone());
                }
            }
            None => {
                let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
                    places.push(None);
                    places.len() - 1
                });
                places[index] = Some(waker.clone());
                *place = Some(Place(index));
            }
        }
    }

    /// Waits no more.
    pub(super) fn leave(&self, place: &mut Option<Place>) {
        if let Some(Place(place)) = place.take() {
            self.places.borrow_mut()[place] = None;
            self.free.borrow_mut().push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn who_waits_is_woken_and_places_are_used_again() {
        let (lasting, woken) = (Lasting::default(), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let cx = Context::from_waker(&waker);
        let (mut one, mut two) = (None, None);
        lasting.wait(&mut one, &cx);
        lasting.wait(&mut one, &cx);
        lasting.wait(&mut two, &cx);
        lasting.leave(&mut one);
        lasting.end();
        assert_eq!((woken.0.load(Relaxed), lasting.ends()), (1, 1));
        let mut three = None;
        lasting.wait(&mut three, &cx);
        assert_eq!(lasting.places.borrow().len(), 2);
        lasting.end();
        assert_eq!(woken.0.load(Relaxed), 3);
    }
}
