//! Reports of errors and warnings in a file, each with its place and a help text; as structure,
//! text or JSON.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{
    AnnotationKind, Element, Group, Level, Origin, Padding, Renderer, Snippet,
    normalize_untrusted_str,
};
use serde::Serialize;

use super::referenced_file::ReferencedFile;

/// Whether a diagnostic stops a configuration from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is not used.
    Error,
    /// The configuration is used; it has a likely mistake.
    Warning,
}

/// A place in the file, by line and column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceLocation {
    pub line: usize,
    /// Counted in characters, from 1.
    pub column: usize,
    /// The text of the line, clipped around the place when it is very long.
    #[serde(skip)]
    pub excerpt: String,
    /// The byte range of the place in `excerpt`.
    #[serde(skip)]
    pub underline: Range<usize>,
}

/// A second place that belongs to a diagnostic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RelatedLocation {
    #[serde(flatten)]
    pub at: SourceLocation,
    /// The relation of the second place to the diagnostic.
    pub label: String,
}

/// An error or a warning, with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub severity: Severity,
    /// The name of the file, as passed to [`super::parse`].
    pub file: String,
    #[serde(flatten)]
    pub at: SourceLocation,
    pub message: String,
    /// What to write instead. The JSON key stays `mend`.
    #[serde(rename = "mend")]
    pub help: String,
    /// Further places, for example the first of two conflicting keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<RelatedLocation>,
}

/// The diagnostics of one file, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConfigReport {
    /// At most [`ConfigReport::MAX_DIAGNOSTICS`].
    pub diagnostics: Vec<Diagnostic>,
    /// The number of further diagnostics.
    pub omitted: usize,
    /// The files that the configuration names and that were read, with or without success.
    #[serde(skip)]
    pub files: Vec<ReferencedFile>,
}

impl ConfigReport {
    /// The most diagnostics in a report; further ones are only counted.
    pub const MAX_DIAGNOSTICS: usize = 100;

    /// Whether there is no diagnostic.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// The diagnostics of one severity.
    pub fn with_severity(&self, severity: Severity) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().filter(move |diagnostic| diagnostic.severity == severity)
    }

    /// Renders each diagnostic as text, with its source line, the underlined place and the help
    /// text.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for diagnostic in &self.diagnostics {
            text.push_str(&renderer.render(&[diagnostic.group()]));
            text.push_str("\n\n");
        }
        if self.omitted > 0 {
            text.push_str(&format!("and {} more, not shown\n\n", self.omitted));
        }
        text
    }
}

impl fmt::Display for ConfigReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for ConfigReport {}

impl Diagnostic {
    fn group(&self) -> Group<'_> {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = level.primary_title(self.message.as_str()).elements(self.at.elements(
            &self.file,
            AnnotationKind::Primary,
            None,
        ));
        for RelatedLocation { at, label } in &self.also {
            group = group.elements(at.elements(&self.file, AnnotationKind::Context, Some(label)));
        }
        group.element(Level::HELP.message(normalize_untrusted_str(&self.help)))
    }
}

impl SourceLocation {
    fn elements<'a>(
        &'a self,
        file: &'a str,
        kind: AnnotationKind,
        label: Option<&'a str>,
    ) -> Vec<Element<'a>> {
        let annotation = kind.span(self.underline.clone()).label(label);
        let snippet =
            Snippet::source(self.excerpt.as_str()).line_start(self.line).annotation(annotation);
        let shown_column = self.excerpt[..self.underline.start].chars().count() + 1;
        if shown_column == self.column {
            return vec![snippet.path(file).into()];
        }
        // The line is clipped before the place, so the renderer cannot compute the column.
        let origin = Origin::path(file).line(self.line).char_column(self.column);
        vec![origin.into(), Padding.into(), snippet.into()]
    }
}
