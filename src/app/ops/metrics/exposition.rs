//! The writer of the page: HELP and TYPE once a family, families in the order of the table.

use std::fmt::{self, Display, Write};
use std::time::Instant;

use super::families::families;
use super::family::{CounterFamily, Family, GaugeFamily, HistogramFamily};

/// One series of a histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramBuckets {
    /// Observations in each bucket, not cumulative; the last one is beyond all bounds.
    pub counts: Vec<u64>,
    /// Sum of all observations, in the family's unit.
    pub sum: f64,
}

/// Takes samples in any order.
#[derive(Debug)]
pub struct FamilyWriter {
    now: Instant,
    /// Lines of each family, in the order of the table.
    lines: Vec<String>,
}

impl FamilyWriter {
    pub(super) fn new(now: Instant) -> Self {
        Self { now, lines: vec![String::new(); families().len()] }
    }

    /// The time of the scrape.
    pub fn now(&self) -> Instant {
        self.now
    }

    pub fn counter<const N: usize>(
        &mut self,
        family: CounterFamily<N>,
        labels: [&dyn Display; N],
        value: u64,
    ) {
        self.push_sample(family.index, &labels, &value);
    }

    pub fn gauge<const N: usize>(
        &mut self,
        family: GaugeFamily<N>,
        labels: [&dyn Display; N],
        value: f64,
    ) {
        self.push_sample(family.index, &labels, &value);
    }

    /// A gauge that is 1 or 0.
    pub fn flag<const N: usize>(
        &mut self,
        family: GaugeFamily<N>,
        labels: [&dyn Display; N],
        value: bool,
    ) {
        self.push_sample(family.index, &labels, &u8::from(value));
    }

    /// `buckets` has one count more than the family has bounds.
    pub fn histogram<const N: usize>(
        &mut self,
        family: HistogramFamily<N>,
        labels: [&dyn Display; N],
        buckets: &HistogramBuckets,
    ) {
        self.push_histogram(family.index, &labels, buckets);
    }

    /// One sample of a counter or gauge.
    pub(super) fn push_sample(
        &mut self,
        index: usize,
        labels: &[&dyn Display],
        value: &dyn Display,
    ) {
        push_line(&mut self.lines[index], &families()[index], "", labels, None, value);
    }

    pub(super) fn push_histogram(
        &mut self,
        index: usize,
        labels: &[&dyn Display],
        buckets: &HistogramBuckets,
    ) {
        let (family, out) = (&families()[index], &mut self.lines[index]);
        let mut cumulative = 0;
        for (bucket, count) in buckets.counts.iter().enumerate() {
            cumulative += count;
            let bound: &dyn Display = match family.bounds.get(bucket) {
                Some(bound) => bound,
                None => &"+Inf",
            };
            push_line(out, family, "_bucket", labels, Some(bound), &cumulative);
        }
        push_line(out, family, "_sum", labels, None, &buckets.sum);
        push_line(out, family, "_count", labels, None, &cumulative);
    }

    /// The page. Families without samples are left out.
    pub(super) fn finish(self) -> String {
        let mut page =
            String::with_capacity(self.lines.iter().map(|lines| lines.len() + 160).sum());
        for (family, lines) in families().iter().zip(&self.lines) {
            if !lines.is_empty() {
                let Family { name, help, kind, .. } = family;
                let kind = kind.as_str();
                let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}");
            }
        }
        page
    }
}

fn push_line(
    out: &mut String,
    family: &Family,
    suffix: &str,
    labels: &[&dyn Display],
    bound: Option<&dyn Display>,
    value: &dyn Display,
) {
    out.push_str(family.name);
    out.push_str(suffix);
    let names = family.labels.iter().copied().chain(bound.map(|_| "le"));
    let mut separator = '{';
    for (name, label) in names.zip(labels.iter().copied().chain(bound)) {
        let _ = write!(out, "{separator}{name}=\"");
        let _ = write!(EscapedLabel(out), "{label}");
        out.push('"');
        separator = ',';
    }
    if separator == ',' {
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

/// Escapes the characters that the format reserves in the value of a label: `\`, `"` and line
/// feeds.
struct EscapedLabel<'a>(&'a mut String);

impl Write for EscapedLabel<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(['\\', '"', '\n']) {
            let (plain, escape) = match part.as_bytes().last() {
                Some(b'\\') => (&part[..part.len() - 1], "\\\\"),
                Some(b'"') => (&part[..part.len() - 1], "\\\""),
                Some(b'\n') => (&part[..part.len() - 1], "\\n"),
                _ => (part, ""),
            };
            self.0.push_str(plain);
            self.0.push_str(escape);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::families as table;
    use super::*;

    #[test]
    fn samples_in_any_order_share_one_header_per_family() {
        let mut out = FamilyWriter::new(Instant::now());
        out.counter(table::RATE_LIMITED, [&"a\\b\"c\nd"], 2);
        out.flag(table::BLIND, [], true);
        out.counter(table::RATE_LIMITED, [&"x"], 3);
        let page = out.finish();
        let family = "# TYPE gapless_rate_limited_total counter\n\
                      gapless_rate_limited_total{route=\"a\\\\b\\\"c\\nd\"} 2\n\
                      gapless_rate_limited_total{route=\"x\"} 3\n";
        assert!(page.contains(family), "{page}");
        assert!(page.contains("# TYPE gapless_blind gauge\ngapless_blind 1\n"), "{page}");
        assert_eq!(page.matches("# HELP ").count(), 2, "{page}");
    }

    #[test]
    fn histogram_buckets_are_written_cumulative() {
        let mut out = FamilyWriter::new(Instant::now());
        let mut counts = vec![0; table::GAP_BOUNDS_SECONDS.len() + 1];
        (counts[0], counts[14], counts[15]) = (1, 2, 3);
        let buckets = HistogramBuckets { counts, sum: 1.5 };
        out.histogram(table::PROBE_DURATION, [&"web"], &buckets);
        let page = out.finish();
        for line in ["_bucket{pool=\"web\",le=\"0.001\"} 1", "_bucket{pool=\"web\",le=\"60\"} 3"]
            .into_iter()
            .chain(["_bucket{pool=\"web\",le=\"+Inf\"} 6", "_sum{pool=\"web\"} 1.5"])
            .chain(["_count{pool=\"web\"} 6"])
        {
            assert!(page.contains(&format!("gapless_probe_duration_seconds{line}\n")), "{page}");
        }
    }
}
