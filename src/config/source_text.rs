//! Conversion of byte spans to lines and columns.

use std::ops::Range;

use super::diagnostics::{Diagnostics, SpannedDiagnostic};
use super::redact::redact;
use super::report::{ConfigReport, Diagnostic, RelatedLocation, SourceLocation};

/// Bytes of a line that are kept on either side of a place; a longer line is clipped, to bound the
/// size of a report.
const CONTEXT_BYTES: usize = 240;

/// The name and text of a file, with the offsets of its lines.
pub(super) struct SourceText<'a> {
    name: &'a str,
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> SourceText<'a> {
    pub(super) fn new(name: &'a str, text: &'a str) -> Self {
        let after_breaks =
            text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        Self { name, text, line_starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// The number of the line with the byte `at`, from 1.
    pub(super) fn line_at(&self, at: usize) -> usize {
        self.line_starts.partition_point(|&begin| begin <= at).max(1)
    }

    /// The report of `diagnostics`, in the order of the file.
    pub(super) fn report(&self, diagnostics: Diagnostics) -> ConfigReport {
        let (sorted, files) = diagnostics.into_sorted();
        let shown = sorted.len().min(ConfigReport::MAX_DIAGNOSTICS);
        ConfigReport {
            omitted: sorted.len() - shown,
            diagnostics: sorted.into_iter().take(shown).map(|f| self.diagnostic(f)).collect(),
            files,
        }
    }

    fn diagnostic(&self, finding: SpannedDiagnostic) -> Diagnostic {
        Diagnostic {
            severity: finding.severity,
            file: self.name.to_owned(),
            at: self.locate(&finding.span),
            message: finding.message,
            help: finding.help,
            also: finding
                .related
                .map(|(span, label)| RelatedLocation { at: self.locate(&span), label })
                .into_iter()
                .collect(),
        }
    }

    /// The place of `span`; only its first line is underlined.
    fn locate(&self, span: &Range<usize>) -> SourceLocation {
        let start = self.text.floor_char_boundary(span.start.min(self.text.len()));
        let line = self.line_starts.partition_point(|&begin| begin <= start).max(1);
        let begin = self.line_starts[line - 1];
        let rest = &self.text[begin..];
        let content = rest.split_once('\n').map_or(rest, |(content, _)| content);
        let content = content.strip_suffix('\r').unwrap_or(content);

        let start = (start - begin).min(content.len());
        let end = span.end.saturating_sub(begin).clamp(start, content.len());
        let clip_start = content.floor_char_boundary(start.saturating_sub(CONTEXT_BYTES));
        let clip_end = content
            .floor_char_boundary(end.min(start + CONTEXT_BYTES).saturating_add(CONTEXT_BYTES));
        let end = content.floor_char_boundary(end).min(clip_end);
        SourceLocation {
            line,
            column: content[..start].chars().count() + 1,
            excerpt: redact(content)[clip_start..clip_end].to_owned(),
            underline: start - clip_start..end - clip_start,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SourceText;

    #[test]
    fn columns_count_characters_not_bytes() {
        let text = "a = 1\r\nñ = \"ü\" # é\n";
        let source = SourceText::new("f", text);
        let at = source.locate(&(text.find("\"ü\"").unwrap()..text.find(" # é").unwrap()));
        assert_eq!((at.line, at.column), (2, 5));
        assert_eq!(&at.excerpt[at.underline], "\"ü\"");
    }

    #[test]
    fn any_span_has_a_location() {
        let source = SourceText::new("f", "é\n\nx");
        for start in 0..8 {
            for end in 0..8 {
                let at = source.locate(&(start..end));
                assert!(at.line >= 1 && at.line <= 3 && at.column >= 1);
                assert!(at.excerpt.get(at.underline).is_some());
            }
        }
    }

    #[test]
    fn long_line_is_clipped_around_its_span() {
        let text = format!("{}here{}", "é".repeat(10_000), "y".repeat(10_000));
        let at = SourceText::new("f", &text).locate(&(20_000..20_004));
        assert_eq!((at.line, at.column), (1, 10_001));
        assert_eq!(&at.excerpt[at.underline.clone()], "here");
        assert!(at.excerpt.len() < 1_000);
    }
}
