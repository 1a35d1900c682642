//! Tables: aligned columns, no borders. Pure.

/// Spaces between columns.
const GAP: usize = 3;

/// A table that may be printed in portions; later rows keep the widths of earlier ones.
pub struct Table {
    headers: Vec<&'static str>,
    widths: Vec<usize>,
    headed: bool,
}

impl Table {
    pub fn new(headers: Vec<&'static str>) -> Self {
        let widths = headers.iter().map(|header| header.len()).collect();
        Self { headers, widths, headed: false }
    }

    /// The text of these rows, below the headers the first time.
    pub fn render(&mut self, rows: &[Vec<String>]) -> String {
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        if !std::mem::replace(&mut self.headed, true) {
            let headers: Vec<String> = self.headers.iter().map(|header| (*header).to_owned()).collect();
            self.line(&headers, &mut text);
        }
        for row in rows {
            self.line(row, &mut text);
        }
        text
    }

    fn line(&self, cells: &[String], text: &mut String) {
        let mut line = String::new();
        for (width, cell) in self.widths.iter().zip(cells) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + GAP - cell.chars().count()));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}
