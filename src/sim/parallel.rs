//! Independent simulations on several threads.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

/// Applies `work` to each item on this many threads. The results are in the order of the items.
pub(super) fn parallel_map<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let run_worker = || {
        let indices = std::iter::repeat_with(|| next.fetch_add(1, Relaxed));
        let mine = indices.map_while(|index| Some((index, work(items.get(index)?))));
        mine.collect::<Vec<(usize, R)>>()
    };
    let mut done = thread::scope(|scope| {
        let others: Vec<_> =
            (1..threads.min(items.len())).map(|_| scope.spawn(run_worker)).collect();
        let mut done = run_worker();
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parallel_map_keeps_the_order_of_items() {
        let items: Vec<u64> = (0..1_000).collect();
        for threads in [0, 1, 7] {
            let doubled = parallel_map(&items, threads, |item| 2 * item);
            assert!(doubled.iter().zip(&items).all(|(double, item)| *double == 2 * item));
            assert_eq!(doubled.len(), items.len());
        }
    }
}
