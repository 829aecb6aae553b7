//! Plain-text and Markdown tables.

use std::fmt;

/// A table of text cells: the first column left-aligned, the others, numbers, right-aligned.
///
/// `Display` gives it with aligned columns for a terminal, without a newline at its end; [`Table::markdown`] is for a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column names and no rows.
    pub fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        Table { header: header.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row. Missing cells are empty, cells beyond the header are dropped.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) -> &mut Self {
        let mut row: Vec<String> = cells.into_iter().map(Into::into).collect();
        row.resize(self.header.len(), String::new());
        self.rows.push(row);
        self
    }

    /// The columns' names.
    pub fn header(&self) -> &[String] {
        &self.header
    }

    /// The rows, each with as many cells as there are columns.
    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// The table in Markdown, columns padded so that it reads well as text too.
    pub fn markdown(&self) -> String {
        let widths = self.widths();
        let rule = |(column, &width): (usize, &usize)| match column {
            0 => format!(" {} ", "-".repeat(width.max(3))),
            _ => format!(" {}: ", "-".repeat(width.max(3) - 1)),
        };
        let rule: Vec<String> = widths.iter().enumerate().map(rule).collect();
        let line = |cells: &[String]| {
            let escaped: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", align(&escaped, &widths).join(" | "))
        };
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("{}|{}|\n{rows}", line(&self.header), rule.join("|"))
    }

    /// Characters of each column's widest cell, at least 3.
    fn widths(&self) -> Vec<usize> {
        let lines = || std::iter::once(&self.header).chain(&self.rows);
        (0..self.header.len())
            .map(|column| lines().map(|cells| cells[column].chars().count()).max().unwrap_or(0).max(3))
            .collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let widths = self.widths();
        let line = |cells: &[String]| align(cells, &widths).join("  ").trim_end().to_string();
        writeln!(f, "{}", line(&self.header))?;
        writeln!(f, "{}", "─".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)))?;
        let rows: Vec<String> = self.rows.iter().map(|row| line(row)).collect();
        f.write_str(&rows.join("\n"))
    }
}

fn align(cells: &[String], widths: &[usize]) -> Vec<String> {
    let pad = |(column, (cell, &width)): (usize, (&String, &usize))| match column {
        0 => format!("{cell:<width$}"),
        _ => format!("{cell:>width$}"),
    };
    cells.iter().zip(widths).enumerate().map(pad).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Table {
        let mut table = Table::new(["method", "ECE"]);
        table.row(["RigL", "0.0624 ± 0.0026"]).row(["CigL", "0.0173"]);
        table
    }

    #[test]
    fn columns_are_aligned_by_characters_not_bytes() {
        let expected =
            "method              ECE\n───────────────────────\nRigL    0.0624 ± 0.0026\nCigL             0.0173";
        assert_eq!(example().to_string(), expected);
    }

    #[test]
    fn markdown_right_aligns_the_numbers() {
        let expected = "| method |             ECE |\n| ------ | --------------: |\n\
                        | RigL   | 0.0624 ± 0.0026 |\n| CigL   |          0.0173 |\n";
        assert_eq!(example().markdown(), expected);
    }

    #[test]
    fn short_rows_are_filled_up() {
        let mut table = Table::new(["a", "b", "c"]);
        table.row(["1"]);
        assert_eq!(table.to_string().lines().last(), Some("1"));
    }
}
