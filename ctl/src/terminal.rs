//! The user's terminal while a remote program has it.

use crate::exit::Failure;
use crossterm::terminal;
use std::io::{self, IsTerminal as _};
use strata_proto::node::TtySize;

/// A terminal in raw mode; it is restored when this is dropped.
pub struct Raw(());

impl Raw {
    /// Puts the terminal into raw mode if stdin is one.
    pub fn enter() -> Result<Option<Self>, Failure> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        terminal::enable_raw_mode()
            .map(|()| Some(Self(())))
            .map_err(|error| Failure::failed(format!("cannot put the terminal into raw mode: {error}")))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing more can be done about a terminal that has gone.
        drop(terminal::disable_raw_mode());
    }
}

/// The terminal's rows and columns; what everybody assumes when there is none.
pub fn size() -> (u16, u16) {
    let (columns, rows) = terminal::size().unwrap_or((80, 24));
    (rows.max(1), columns.max(1))
}

/// The size as the wire has it.
pub fn wire_size() -> TtySize {
    let (rows, columns) = size();
    TtySize { rows: rows.into(), columns: columns.into() }
}
