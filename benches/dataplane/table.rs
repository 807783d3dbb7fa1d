//! Markdown tables that are aligned as plain text too.

/// Renders `rows` under `headings`; the first two columns are words, the others figures.
pub(crate) fn render(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headings[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let headings: Vec<String> = headings.iter().map(|&heading| heading.to_owned()).collect();
    let mut table = line(&headings, &widths);
    for (column, &width) in widths.iter().enumerate() {
        let end = if is_words(column) { '-' } else { ':' };
        table.push_str(&format!("|{}{end}", "-".repeat(width + 1)));
    }
    table.push_str("|\n");
    for row in rows {
        table.push_str(&line(row, &widths));
    }
    table
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (column, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        let padded =
            if is_words(column) { format!("{cell:width$}") } else { format!("{cell:>width$}") };
        line.push_str(&format!("| {padded} "));
    }
    line + "|\n"
}

fn is_words(column: usize) -> bool {
    column < 2
}
