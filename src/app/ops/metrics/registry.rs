//! Series that are written at the moment of an event, and the recorder of the `metrics` facade.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

use super::exposition::HistogramBuckets;
use super::families::families;
use super::family::{CounterFamily, GaugeFamily, HistogramFamily, MetricKind};
use super::{Collect, FamilyWriter};

/// All series of all families of the process, by their places in the table.
#[derive(Debug)]
pub struct MetricsRegistry {
    families: Vec<FamilySeries>,
}

#[derive(Debug)]
enum FamilySeries {
    Counter(SeriesTable<AtomicU64>),
    /// The bits of an `f64`.
    Gauge(SeriesTable<AtomicU64>),
    Histogram {
        bounds: &'static [f64],
        series: SeriesTable<HistogramCell>,
    },
}

/// Series by the values of their labels, sorted: so that a lookup does not allocate, and the order
/// on the page is stable.
#[derive(Debug)]
struct SeriesTable<T>(RwLock<Vec<Series<T>>>);

/// Values of the labels, and the cell of the series.
type Series<T> = (Box<[Box<str>]>, Arc<T>);

impl<T> SeriesTable<T> {
    fn new() -> Self {
        Self(RwLock::new(Vec::new()))
    }

    fn get_or_insert(&self, values: &[impl AsRef<str>], new: impl FnOnce() -> T) -> Arc<T> {
        let find = |all: &[Series<T>]| {
            all.binary_search_by(|(labels, _)| {
                labels.iter().map(AsRef::as_ref).cmp(values.iter().map(AsRef::as_ref))
            })
        };
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Ok(index) = find(&all) {
            return Arc::clone(&all[index].1);
        }
        drop(all);
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let index = find(&all).unwrap_or_else(|index| {
            let labels = values.iter().map(|value| value.as_ref().into()).collect();
            all.insert(index, (labels, Arc::new(new())));
            index
        });
        Arc::clone(&all[index].1)
    }

    fn for_each(&self, mut write: impl FnMut(&[&dyn Display], &T)) {
        for (labels, cell) in &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            let labels: Vec<&dyn Display> = labels.iter().map(|label| label as _).collect();
            write(&labels, cell);
        }
    }
}

#[derive(Debug)]
struct HistogramCell {
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    /// The bits of an `f64`.
    sum: AtomicU64,
}

impl HistogramCell {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = std::iter::repeat_with(AtomicU64::default).take(bounds.len() + 1).collect();
        Self { bounds, counts, sum: AtomicU64::new(0) }
    }

    fn read(&self) -> HistogramBuckets {
        HistogramBuckets {
            counts: self.counts.iter().map(|count| count.load(Relaxed)).collect(),
            sum: f64::from_bits(self.sum.load(Relaxed)),
        }
    }
}

impl HistogramFn for HistogramCell {
    fn record(&self, value: f64) {
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        self.counts[bucket].fetch_add(1, Relaxed);
        let add = |sum| Some((f64::from_bits(sum) + value).to_bits());
        let _ = self.sum.fetch_update(Relaxed, Relaxed, add);
    }
}

static REGISTRY: LazyLock<MetricsRegistry> = LazyLock::new(MetricsRegistry::new);

/// The process's registry.
pub fn registry() -> &'static MetricsRegistry {
    &REGISTRY
}

/// Makes the process's registry the global recorder of the `metrics` facade. Another recorder that
/// was installed before stays: the handles of [`families`] do not depend on it.
pub fn install_recorder() {
    let _ = metrics::set_global_recorder(registry());
}

impl MetricsRegistry {
    fn new() -> Self {
        let series = families().iter().map(|family| match family.kind {
            MetricKind::Counter => FamilySeries::Counter(SeriesTable::new()),
            MetricKind::Gauge => FamilySeries::Gauge(SeriesTable::new()),
            MetricKind::Histogram => {
                FamilySeries::Histogram { bounds: family.bounds, series: SeriesTable::new() }
            }
        });
        Self { families: series.collect() }
    }

    fn counter(&self, index: usize, values: &[impl AsRef<str>]) -> Counter {
        match &self.families[index] {
            FamilySeries::Counter(series) => {
                Counter::from_arc(series.get_or_insert(values, AtomicU64::default))
            }
            FamilySeries::Gauge(_) | FamilySeries::Histogram { .. } => Counter::noop(),
        }
    }

    fn gauge(&self, index: usize, values: &[impl AsRef<str>]) -> Gauge {
        match &self.families[index] {
            FamilySeries::Gauge(series) => {
                Gauge::from_arc(series.get_or_insert(values, AtomicU64::default))
            }
            FamilySeries::Counter(_) | FamilySeries::Histogram { .. } => Gauge::noop(),
        }
    }

    fn histogram(&self, index: usize, values: &[impl AsRef<str>]) -> Histogram {
        match &self.families[index] {
            FamilySeries::Histogram { bounds, series } => {
                Histogram::from_arc(series.get_or_insert(values, || HistogramCell::new(bounds)))
            }
            FamilySeries::Counter(_) | FamilySeries::Gauge(_) => Histogram::noop(),
        }
    }
}

impl<const N: usize> CounterFamily<N> {
    /// The registry's handle of one series. The first call for a series creates it; later ones do
    /// not allocate.
    pub fn with<S: AsRef<str>>(self, values: &[S; N]) -> Counter {
        registry().counter(self.index, values)
    }
}

impl CounterFamily<0> {
    /// The handle of the only series.
    pub fn handle(self) -> Counter {
        self.with::<&str>(&[])
    }
}

impl<const N: usize> GaugeFamily<N> {
    /// As [`CounterFamily::with`].
    pub fn with<S: AsRef<str>>(self, values: &[S; N]) -> Gauge {
        registry().gauge(self.index, values)
    }
}

impl GaugeFamily<0> {
    /// The handle of the only series.
    pub fn handle(self) -> Gauge {
        self.with::<&str>(&[])
    }
}

impl<const N: usize> HistogramFamily<N> {
    /// As [`CounterFamily::with`]. Durations are recorded in seconds.
    pub fn with<S: AsRef<str>>(self, values: &[S; N]) -> Histogram {
        registry().histogram(self.index, values)
    }
}

impl Collect for MetricsRegistry {
    fn collect(&self, out: &mut FamilyWriter) {
        for (index, family) in self.families.iter().enumerate() {
            match family {
                FamilySeries::Counter(series) => series.for_each(|labels, value| {
                    out.push_sample(index, labels, &value.load(Relaxed));
                }),
                FamilySeries::Gauge(series) => series.for_each(|labels, value| {
                    out.push_sample(index, labels, &f64::from_bits(value.load(Relaxed)));
                }),
                FamilySeries::Histogram { series, .. } => series.for_each(|labels, cell| {
                    out.push_histogram(index, labels, &cell.read());
                }),
            }
        }
    }
}

/// The place of a key's family, and the values of its labels in the family's order; labels that the
/// key lacks are empty. `None` if the table has no such family: the facade's samples are then
/// dropped.
fn resolve(key: &Key) -> Option<(usize, Vec<&str>)> {
    let index = families().iter().position(|family| family.name == key.name())?;
    let value = |name: &&str| {
        key.labels().find(|label| label.key() == *name).map_or("", |label| label.value())
    };
    Some((index, families()[index].labels.iter().map(value).collect()))
}

impl Recorder for MetricsRegistry {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        resolve(key).map_or_else(Counter::noop, |(index, values)| self.counter(index, &values))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        resolve(key).map_or_else(Gauge::noop, |(index, values)| self.gauge(index, &values))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        resolve(key).map_or_else(Histogram::noop, |(index, values)| self.histogram(index, &values))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use metrics::{counter, gauge, histogram};

    use super::super::render;
    use super::*;

    #[test]
    fn facade_macros_write_to_the_declared_families() {
        let registry = MetricsRegistry::new();
        metrics::with_local_recorder(&registry, || {
            counter!("gapless_probes_total", "outcome" => "pass", "pool" => "web").increment(2);
            gauge!("gapless_snapshot_version").set(7.0);
            histogram!("gapless_probe_duration_seconds", "pool" => "web").record(0.001);
            histogram!("gapless_probe_duration_seconds", "pool" => "web").record(70.0);
            counter!("undeclared_total").increment(1);
            counter!("gapless_snapshot_version").increment(1);
        });
        let page = render(Instant::now(), &[&registry]);
        for line in [
            "gapless_probes_total{pool=\"web\",outcome=\"pass\"} 2",
            "gapless_snapshot_version 7",
            "gapless_probe_duration_seconds_bucket{pool=\"web\",le=\"0.001\"} 1",
            "gapless_probe_duration_seconds_bucket{pool=\"web\",le=\"+Inf\"} 2",
            "gapless_probe_duration_seconds_sum{pool=\"web\"} 70.001",
        ] {
            assert!(page.lines().any(|one| one == line), "{line}\n{page}");
        }
        assert!(!page.contains("undeclared"), "{page}");
    }

    #[test]
    fn series_are_found_again_and_sorted_by_labels() {
        let registry = MetricsRegistry::new();
        let index = families().iter().position(|family| family.name == "gapless_probes_total");
        let index = index.expect("declared");
        for values in [["web", "pass"], ["api", "pass"], ["web", "pass"]] {
            registry.counter(index, &values).increment(1);
        }
        let page = render(Instant::now(), &[&registry]);
        let samples = "gapless_probes_total{pool=\"api\",outcome=\"pass\"} 1\n\
                       gapless_probes_total{pool=\"web\",outcome=\"pass\"} 2\n";
        assert!(page.ends_with(samples), "{page}");
    }
}
