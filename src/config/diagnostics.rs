//! Diagnostics by byte span; [`super::source_text`] turns spans into lines and columns.

use std::ops::Range;

use super::referenced_file::ReferencedFile;
use super::report::Severity;

/// An error or a warning.
#[derive(Clone, Debug)]
pub(super) struct SpannedDiagnostic {
    pub(super) severity: Severity,
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) help: String,
    /// A second place, with its label.
    pub(super) related: Option<(Range<usize>, String)>,
}

/// The diagnostics of one file, and the files that it refers to.
#[derive(Debug, Default)]
pub(super) struct Diagnostics {
    list: Vec<SpannedDiagnostic>,
    files: Vec<ReferencedFile>,
}

/// A message and its help text, without a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) message: String,
    pub(super) help: String,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl Diagnostics {
    /// Records an error; the caller may add a second place to the result.
    pub(super) fn error(
        &mut self,
        span: &Range<usize>,
        problem: Problem,
    ) -> &mut SpannedDiagnostic {
        self.push(Severity::Error, span, problem)
    }

    pub(super) fn warning(&mut self, span: &Range<usize>, problem: Problem) {
        self.push(Severity::Warning, span, problem);
    }

    fn push(
        &mut self,
        severity: Severity,
        span: &Range<usize>,
        problem: Problem,
    ) -> &mut SpannedDiagnostic {
        let Problem { message, help } = problem;
        self.list.push_mut(SpannedDiagnostic {
            severity,
            span: span.clone(),
            message,
            help,
            related: None,
        })
    }

    pub(super) fn has_errors(&self) -> bool {
        self.list.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// Records a file that is about to be read.
    pub(super) fn add_file(&mut self, file: ReferencedFile) {
        self.files.push(file);
    }

    /// The diagnostics in the order of the file, and the files that it refers to.
    pub(super) fn into_sorted(mut self) -> (Vec<SpannedDiagnostic>, Vec<ReferencedFile>) {
        self.list.sort_by_key(|finding| (finding.span.start, finding.span.end));
        // For a file that was read twice the first stamp counts, so that a change in between is
        // noticed.
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.files.dedup_by(|later, first| later.path == first.path);
        (self.list, self.files)
    }
}

impl SpannedDiagnostic {
    pub(super) fn add_related(&mut self, span: &Range<usize>, label: &str) {
        self.related = Some((span.clone(), label.to_owned()));
    }
}
