//! Markdown tables that are aligned as plain text too.

/// Renders `rows` under `headings`; the first two columns are words, the others figures.
pub(crate) fn render(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headings[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let headings: Vec<String> = headings.iter().map(|&heading| heading.to_owned()).collect();
    let mut table = format_row(&headings, &widths);
    for (column, &width) in widths.iter().enumerate() {
        let alignment = if is_text_column(column) { '-' } else { ':' };
        table.push_str(&format!("|{}{alignment}", "-".repeat(width + 1)));
    }
    table.push_str("|\n");
    for row in rows {
        table.push_str(&format_row(row, &widths));
    }
    table
}

fn format_row(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (column, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        let padded = if is_text_column(column) {
            format!("{cell:width$}")
        } else {
            format!("{cell:>width$}")
        };
        line.push_str(&format!("| {padded} "));
    }
    line + "|\n"
}

fn is_text_column(column: usize) -> bool {
    column < 2
}
