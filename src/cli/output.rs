//! What is said to the person or program that reads along, which may stop reading at any time.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use crate::error::{Error, Result};

/// Prints a text and a line's end to standard output. A reader that has closed its end, such as `head`, has read enough:
/// that is no error.
///
/// # Errors
/// Any other failure, such as a full disk.
pub(super) fn print(text: impl Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Error::Resources(format!("standard output could not be written: {e}")))
        }
        _ => Ok(()),
    }
}

/// Prints a text and a line's end to standard error. There is nowhere left to tell of a failure, and no run ends for it.
pub(super) fn tell(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
