//! Streaming responses of one endpoint, which are woken when they have to end.

use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};

/// The wakers of the responses that wait for their next chunk; one slot for each response.
#[derive(Debug, Default)]
pub(super) struct StreamingResponses {
    wakers: RefCell<Vec<Option<Waker>>>,
    free_slots: RefCell<Vec<usize>>,
    end_count: Cell<u64>,
}

/// A slot, to be given back by [`StreamingResponses::release_slot`].
#[derive(Debug)]
pub(super) struct WakerSlot(usize);

impl StreamingResponses {
    /// How often [`Self::end_all`] was called.
    pub(super) fn end_count(&self) -> u64 {
        self.end_count.get()
    }

    /// Ends all current responses.
    pub(super) fn end_all(&self) {
        self.end_count.update(|ends| ends + 1);
        // They release their slots when they are polled, not here.
        self.wakers.borrow().iter().flatten().for_each(Waker::wake_by_ref);
    }

    /// Registers the waker, in the given slot or in a new one.
    pub(super) fn register_waker(&self, slot: &mut Option<WakerSlot>, cx: &Context<'_>) {
        let mut wakers = self.wakers.borrow_mut();
        let waker = cx.waker();
        match slot {
            Some(WakerSlot(index)) => {
                if !wakers[*index].as_ref().is_some_and(|registered| registered.will_wake(waker)) {
                    wakers[*index] = Some(waker.clone());
                }
            }
            None => {
                let index = self.free_slots.borrow_mut().pop().unwrap_or_else(|| {
                    wakers.push(None);
                    wakers.len() - 1
                });
                wakers[index] = Some(waker.clone());
                *slot = Some(WakerSlot(index));
            }
        }
    }

    pub(super) fn release_slot(&self, slot: &mut Option<WakerSlot>) {
        if let Some(WakerSlot(index)) = slot.take() {
            self.wakers.borrow_mut()[index] = None;
            self.free_slots.borrow_mut().push(index);
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
    struct WakeCounter(AtomicU32);

    impl Wake for WakeCounter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn registered_task_is_woken_and_slot_is_reused() {
        let (responses, wake_counter) =
            (StreamingResponses::default(), Arc::new(WakeCounter::default()));
        let waker = Waker::from(Arc::clone(&wake_counter));
        let cx = Context::from_waker(&waker);
        let (mut one, mut two) = (None, None);
        responses.register_waker(&mut one, &cx);
        responses.register_waker(&mut one, &cx);
        responses.register_waker(&mut two, &cx);
        responses.release_slot(&mut one);
        responses.end_all();
        assert_eq!((wake_counter.0.load(Relaxed), responses.end_count()), (1, 1));
        let mut three = None;
        responses.register_waker(&mut three, &cx);
        assert_eq!(responses.wakers.borrow().len(), 2);
        responses.end_all();
        assert_eq!(wake_counter.0.load(Relaxed), 3);
    }
}
