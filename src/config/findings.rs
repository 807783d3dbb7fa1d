//! What the checks found, by byte span; [`super::source`] turns it into lines and columns.

use std::ops::Range;

use super::named::NamedFile;
use super::report::Severity;

/// One thing that is wrong, or looks so.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) mend: String,
    /// A second place that belongs to it, and why.
    pub(super) also: Option<(Range<usize>, String)>,
}

/// Everything found in one file.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    files: Vec<NamedFile>,
}

/// A message and its mend, before it is known where they apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) message: String,
    pub(super) mend: String,
}

impl Flaw {
    pub(super) fn new(message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { message: message.into(), mend: mend.into() }
    }
}

impl Findings {
    /// Records an error; a second place may be added to what is returned.
    pub(super) fn error(&mut self, span: &Range<usize>, flaw: Flaw) -> &mut Finding {
        self.push(Severity::Error, span, flaw)
    }

    /// Records a warning.
    pub(super) fn warning(&mut self, span: &Range<usize>, flaw: Flaw) {
        self.push(Severity::Warning, span, flaw);
    }

    fn push(&mut self, severity: Severity, span: &Range<usize>, flaw: Flaw) -> &mut Finding {
        let Flaw { message, mend } = flaw;
        self.list.push_mut(Finding { severity, span: span.clone(), message, mend, also: None })
    }

    pub(super) fn has_errors(&self) -> bool {
        self.list.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// Notes a file that is about to be read.
    pub(super) fn named(&mut self, file: NamedFile) {
        self.files.push(file);
    }

    /// All of them, in the order of the file; and the files that were read besides.
    pub(super) fn into_sorted(mut self) -> (Vec<Finding>, Vec<NamedFile>) {
        self.list.sort_by_key(|finding| (finding.span.start, finding.span.end));
        // Of one that was read twice the first look counts: what has changed since is news.
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.files.dedup_by(|later, first| later.path == first.path);
        (self.list, self.files)
    }
}

impl Finding {
    pub(super) fn also(&mut self, span: &Range<usize>, label: &str) {
        self.also = Some((span.clone(), label.to_owned()));
    }
}
