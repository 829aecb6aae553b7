//! NumPy's `.npy` (its format description, versions 1 to 3): a header in Python's notation, then the elements.
//!
//! The header is parsed here because the `npyz` crate multiplies the extents of a hostile shape without a check.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::array::{Array, Element, Header};
use crate::{Error, Result};

/// Bytes of a header at most: NumPy's own limit on what it reads from strangers is 10,000.
const LONGEST: usize = 65_536;

/// Opens a file that is one array.
pub(super) fn open(path: &Path) -> Result<Array> {
    let unreadable = |e| Error::file_because(path, "could not be read", e);
    let mut file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let (header, used) = header(path, "", &mut file)?;
    Array::new(path, "", header, length.saturating_sub(used), Box::new(file))
}

/// Reads an array's header, and says how many bytes it took.
pub(super) fn header(path: &Path, name: &str, read: &mut impl Read) -> Result<(Header, u64)> {
    let fail = |detail: String| match name {
        "" => Error::file(path, detail),
        name => Error::file(path, format!("array {name}: {detail}")),
    };
    let short = |_| fail("not a NumPy array, or truncated in its header".into());
    let mut start = [0; 8];
    read.read_exact(&mut start).map_err(short)?;
    if &start[..6] != b"\x93NUMPY" || !(1..=3).contains(&start[6]) {
        return Err(fail("not a NumPy array of version 1 to 3".into()));
    }
    let mut length = [0; 4];
    let length_bytes = if start[6] == 1 { 2 } else { 4 };
    read.read_exact(&mut length[..length_bytes]).map_err(short)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST {
        return Err(fail(format!("a header of {length} bytes, expected at most {LONGEST}")));
    }
    let mut text = vec![0; length];
    read.read_exact(&mut text).map_err(short)?;
    let text = String::from_utf8_lossy(&text);
    let header = parse(&text).map_err(fail)?;
    Ok((header, (8 + length_bytes + length) as u64))
}

/// The header `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, its keys in any order.
fn parse(text: &str) -> Result<Header, String> {
    let value = |key: &str| {
        let (_, rest) = text.split_once(&format!("'{key}'"))?;
        Some(rest.trim_start().strip_prefix(':')?.trim_start())
    };
    let damaged = || "a damaged NumPy header".to_string();
    let descr = value("descr").ok_or_else(damaged)?;
    let descr = descr.strip_prefix('\'').and_then(|rest| rest.split_once('\''));
    let (descr, _) = descr.ok_or("elements that are records, expected numbers")?;
    if value("fortran_order").ok_or_else(damaged)?.starts_with("True") {
        return Err("in Fortran order, expected C order: save numpy.ascontiguousarray(...)".into());
    }
    let shape = value("shape").and_then(|rest| rest.strip_prefix('(')?.split_once(')')).ok_or_else(damaged)?.0;
    let extents = shape.split(',').map(str::trim).filter(|extent| !extent.is_empty());
    let shape = extents.map(|extent| extent.parse().map_err(|_| damaged())).collect::<Result<_, _>>()?;
    let element = match descr {
        "<f2" => Element::F16,
        "<f4" => Element::F32,
        "<f8" => Element::F64,
        "|i1" => Element::Signed(1),
        "|u1" => Element::Unsigned(1),
        "<i2" => Element::Signed(2),
        "<u2" => Element::Unsigned(2),
        "<i4" => Element::Signed(4),
        "<u4" => Element::Unsigned(4),
        "<i8" => Element::Signed(8),
        "<u8" => Element::Unsigned(8),
        other => return Err(format!("elements of type {other}, expected little-endian f2, f4, f8 or integers")),
    };
    Ok(Header { element, shape })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_as_numpy_writes_them_are_understood() {
        let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (50000, 10), }          \n";
        assert_eq!(parse(text), Ok(Header { element: Element::F32, shape: vec![50_000, 10] }));
        let text = "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }\n";
        assert_eq!(parse(text), Ok(Header { element: Element::Unsigned(1), shape: vec![3] }));
        let text = "{'shape': (), 'fortran_order': False, 'descr': '<f8'}";
        assert_eq!(parse(text), Ok(Header { element: Element::F64, shape: vec![] }));
    }

    #[test]
    fn headers_that_cannot_be_used_say_why() {
        for (text, part) in [
            ("", "damaged"),
            ("{'descr': '<f4'}", "damaged"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, x)}", "damaged"),
            ("{'descr': '<f4', 'fortran_order': True, 'shape': (3, 2)}", "Fortran order"),
            ("{'descr': '>f4', 'fortran_order': False, 'shape': (3, 2)}", ">f4"),
            ("{'descr': '|O', 'fortran_order': False, 'shape': (3, 2)}", "|O"),
            ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3, 2)}", "records"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 2)}", "damaged"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
