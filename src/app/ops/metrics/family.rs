//! What a metric family is, and handles that check its kind and number of labels at compile time.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl MetricKind {
    /// The word of the `# TYPE` line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The unit of a family's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricUnit {
    /// A number of things.
    Count,
    Seconds,
    /// Seconds since 1970-01-01T00:00:00Z.
    UnixSeconds,
    Bytes,
    /// A share or a factor, without a unit.
    Ratio,
    /// 0 or 1.
    Flag,
    /// A number that stands for a state.
    Level,
}

impl MetricUnit {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Seconds => "seconds",
            Self::UnixSeconds => "unix seconds",
            Self::Bytes => "bytes",
            Self::Ratio => "ratio",
            Self::Flag => "0 or 1",
            Self::Level => "level",
        }
    }
}

/// One metric family: all series of one name.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: MetricKind,
    pub unit: MetricUnit,
    /// Names of the labels, in the order in which the page shows them.
    pub labels: &'static [&'static str],
    /// Text of the `# HELP` line; neither `\` nor a line feed is in it.
    pub help: &'static str,
    /// Upper bounds of a histogram's buckets, ascending, without infinity. Empty for other kinds.
    pub bounds: &'static [f64],
}

/// The place of a family in the table.
///
/// # Panics
/// At compile time, as all callers are constants: if the table has no such family, or one of
/// another kind or with another number of labels.
const fn find(table: &[Family], name: &str, kind: MetricKind, label_count: usize) -> usize {
    let mut index = 0;
    while index < table.len() {
        let family = &table[index];
        if is_equal(family.name.as_bytes(), name.as_bytes()) {
            assert!(family.kind as usize == kind as usize, "the family has another kind");
            assert!(family.labels.len() == label_count, "the family has other labels");
            return index;
        }
        index += 1;
    }
    panic!("no such family")
}

/// `==` for slices is not const.
const fn is_equal(left: &[u8], right: &[u8]) -> bool {
    let mut index = 0;
    while index < left.len() && index < right.len() && left[index] == right[index] {
        index += 1;
    }
    index == left.len() && index == right.len()
}

/// A counter family with `N` labels. Values of labels always follow the order of
/// [`Family::labels`].
#[derive(Clone, Copy, Debug)]
pub struct CounterFamily<const N: usize> {
    pub(super) index: usize,
}

/// A gauge family with `N` labels.
#[derive(Clone, Copy, Debug)]
pub struct GaugeFamily<const N: usize> {
    pub(super) index: usize,
}

/// A histogram family with `N` labels.
#[derive(Clone, Copy, Debug)]
pub struct HistogramFamily<const N: usize> {
    pub(super) index: usize,
}

impl<const N: usize> CounterFamily<N> {
    pub(super) const fn named(table: &[Family], name: &str) -> Self {
        Self { index: find(table, name, MetricKind::Counter, N) }
    }
}

impl<const N: usize> GaugeFamily<N> {
    pub(super) const fn named(table: &[Family], name: &str) -> Self {
        Self { index: find(table, name, MetricKind::Gauge, N) }
    }
}

impl<const N: usize> HistogramFamily<N> {
    pub(super) const fn named(table: &[Family], name: &str) -> Self {
        Self { index: find(table, name, MetricKind::Histogram, N) }
    }
}
