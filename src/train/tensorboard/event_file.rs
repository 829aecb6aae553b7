//! TensorBoard's file format: records of TFRecord, each a protocol buffer `Event`.
//!
//! A record is the length n of its data (u64, little-endian), the masked CRC-32C of these 8 bytes (u32), the n bytes of data, and
//! their masked CRC-32C (TensorFlow, `lib/io/record_writer.h`). The messages are those of TensorFlow's `event.proto` and
//! `summary.proto` as far as they are used here, with their field numbers.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::error::{Error, Result};

/// What the first event of every file says.
const FILE_VERSION: &str = "brain.Event:2";
/// `SessionLog.SessionStatus.START`: a reader that has seen later steps of an earlier file forgets them.
const SESSION_START: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    // TensorFlow has the following in a `oneof`, which on the wire is the same: one of them is set.
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Scalars>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

/// TensorFlow's `Summary`.
#[derive(Clone, PartialEq, Message)]
struct Scalars {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

/// TensorFlow's `Summary.Value`.
#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    /// Of a `oneof`, so that a 0 is written too.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// TensorFlow's masked CRC-32C: rotated and moved, so that a checksum of data that hold checksums is none of theirs.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn record(event: &Event) -> Vec<u8> {
    let data = event.encode_to_vec();
    let length = (data.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(&data);
    record.extend(masked_crc(&data).to_le_bytes());
    record
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// An events file that is being written.
#[derive(Debug)]
pub(super) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// A new file at `path` that says only what it is. One that is there is replaced.
    pub(super) fn create(path: PathBuf) -> Result<EventFile> {
        let file = OpenOptions::new().create(true).write(true).truncate(true).open(&path);
        let file = file.map_err(|e| Error::file_because(&path, "could not be made", e))?;
        let mut events = EventFile { path, file };
        let event = Event { wall_time: now(), ..Event::default() };
        let version = Event { file_version: Some(FILE_VERSION.into()), ..event.clone() };
        let session = Event { session_log: Some(SessionLog { status: SESSION_START }), ..event };
        events.write(&[record(&version), record(&session)].concat())?;
        Ok(events)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends the numbers of a step by their tags; one that is not finite as an f32 is left out, and so is a step without any.
    pub(super) fn append(&mut self, step: u64, scalars: impl Iterator<Item = (String, f64)>) -> Result<()> {
        let value: Vec<Scalar> = scalars
            .map(|(tag, value)| (tag, value as f32))
            .filter(|(_, value)| value.is_finite())
            .map(|(tag, value)| Scalar { tag, simple_value: Some(value) })
            .collect();
        if value.is_empty() {
            return Ok(());
        }
        let summary = Some(Scalars { value });
        self.write(&record(&Event { wall_time: now(), step: step as i64, summary, ..Event::default() }))
    }

    /// In one write and unbuffered, so that readers see whole records.
    fn write(&mut self, records: &[u8]) -> Result<()> {
        self.file.write_all(records).map_err(|e| Error::file_because(&self.path, "could not be written", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 3720, B.4.
    #[test]
    fn the_checksum_is_the_crc_of_iscsi() {
        let ascending: [u8; 32] = std::array::from_fn(|i| i as u8);
        let descending: [u8; 32] = std::array::from_fn(|i| 31 - i as u8);
        let cases =
            [([0; 32], 0x8a91_36aa), ([0xff; 32], 0x62a8_ab43), (ascending, 0x46dd_794e), (descending, 0x113f_db5c)];
        for (data, crc) in cases {
            assert_eq!(crc32c::crc32c(&data), crc);
        }
    }

    // The record that every file of TensorFlow begins with after its time: 24 bytes of data.
    #[test]
    fn the_first_record_is_framed_as_tensorflow_frames_it() {
        let record = record(&Event { file_version: Some(FILE_VERSION.into()), wall_time: 1.0, ..Event::default() });
        assert_eq!(record[..8], [24, 0, 0, 0, 0, 0, 0, 0]);
        // The checksum of this length stands at the beginning of every events file: a3 7f 4b 22.
        assert_eq!(record[8..12], [0xa3, 0x7f, 0x4b, 0x22]);
        let mut data = vec![0x09];
        data.extend(1f64.to_le_bytes());
        data.extend([0x1a, 13]);
        data.extend(b"brain.Event:2");
        assert_eq!(record[12..36], data);
        assert_eq!(record.len(), 12 + 24 + 4);
    }

    #[test]
    fn a_scalar_of_zero_is_written_and_what_is_not_finite_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(folder.path().join("events")).unwrap();
        let begun = std::fs::metadata(events.path()).unwrap().len() as usize;
        let scalars = [("a", 0.0), ("b", f64::NAN), ("c", f64::INFINITY), ("d", 1e300), ("e", 0.5)];
        events.append(7, scalars.map(|(tag, value)| (tag.to_owned(), value)).into_iter()).unwrap();
        events.append(8, [("b".to_owned(), f64::NAN)].into_iter()).unwrap();
        let bytes = std::fs::read(events.path()).unwrap().split_off(begun);
        let event = Event::decode(&bytes[12..bytes.len() - 4]).unwrap();
        let scalar = |tag: &str, value| Scalar { tag: tag.into(), simple_value: Some(value) };
        assert_eq!((event.step, event.summary.unwrap().value), (7, vec![scalar("a", 0.0), scalar("e", 0.5)]));
    }
}
