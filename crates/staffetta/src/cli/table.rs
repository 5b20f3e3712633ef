//! Columns on standard output.

/// One row for each item; every column but the last is as wide as its widest cell.
pub fn print<T, const N: usize>(items: &[T], cells: impl Fn(&T) -> [String; N]) {
    let rows: Vec<[String; N]> = items.iter().map(cells).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    for row in &rows {
        let line: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("{}", line.join("  ").trim_end());
    }
}
