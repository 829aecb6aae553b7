//! What `cigl train --tensorboard` writes, read by the format's own description: framing, checksums and messages.
#![cfg(unix)]

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::program::{succeed, train, trained};
use crate::resume::{Moment, kill_at, resume};
use crate::run_files::{files, summary};

/// CRC-32C bit by bit: the reflected polynomial 0x1edc6f41.
fn crc32c(data: &[u8]) -> u32 {
    let bit = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !data.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), bit))
}

fn checked(data: &[u8], stored: &[u8]) {
    let crc = crc32c(data);
    let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
    assert_eq!(u32::from_le_bytes(stored.try_into().unwrap()), masked);
}

/// The records of a TFRecord file, with every checksum right.
fn records(mut file: &[u8]) -> Vec<&[u8]> {
    let mut records = vec![];
    while !file.is_empty() {
        checked(&file[..8], &file[8..12]);
        let n = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let data = &file[12..12 + n];
        checked(data, &file[12 + n..16 + n]);
        records.push(data);
        file = &file[16 + n..];
    }
    records
}

/// The fields of a protocol buffer: number, wire type and bytes, those of a varint as eight.
fn fields(mut message: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
    fn varint(message: &mut &[u8]) -> u64 {
        let length = message.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let (bytes, rest) = message.split_at(length);
        *message = rest;
        bytes.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
    }
    let mut fields = vec![];
    while !message.is_empty() {
        let key = varint(&mut message);
        let value = match key & 7 {
            0 => varint(&mut message).to_le_bytes().to_vec(),
            kind => {
                let length = match kind {
                    1 => 8,
                    2 => varint(&mut message) as usize,
                    5 => 4,
                    _ => panic!("wire type {kind}"),
                };
                let (value, rest) = message.split_at(length);
                message = rest;
                value.to_vec()
            }
        };
        fields.push((key >> 3, key & 7, value));
    }
    fields
}

fn field(message: &[u8], number: u64) -> Option<Vec<u8>> {
    fields(message).into_iter().find(|field| field.0 == number).map(|field| field.2)
}

/// The names of the events files of a run.
fn events_files(run: &Path) -> Vec<PathBuf> {
    files(run).into_iter().filter(|file| file.to_string_lossy().contains("tfevents")).collect()
}

type Scalar = (u64, String, f32);

/// Step, tag and value of every scalar in the one events file of a run, in their order.
fn scalars(run: &Path) -> Vec<Scalar> {
    let [file] = &events_files(run)[..] else { panic!("{:?}", events_files(run)) };
    assert!(file.to_string_lossy().starts_with("events.out.tfevents."), "{}", file.display());
    let bytes = std::fs::read(run.join(file)).unwrap();
    let records = records(&bytes);
    // event.proto: wall_time 1, step 2, file_version 3, summary 5, session_log 7 with status 1, where 1 is START.
    assert_eq!(field(records[0], 3).unwrap(), b"brain.Event:2");
    assert_eq!(field(&field(records[1], 7).unwrap(), 1).unwrap()[0], 1);
    let mut all = vec![];
    for event in &records[2..] {
        let time = f64::from_le_bytes(field(event, 1).unwrap().try_into().unwrap());
        assert!((1.6e9..1e10).contains(&time), "{time} seconds since 1970");
        let step = field(event, 2).map_or(0, |step| u64::from_le_bytes(step.try_into().unwrap()));
        // summary.proto: value 1, of which tag 1, simple_value 2.
        for (number, _, value) in fields(&field(event, 5).unwrap()) {
            assert_eq!(number, 1);
            let tag = String::from_utf8(field(&value, 1).unwrap()).unwrap();
            all.push((step, tag, f32::from_le_bytes(field(&value, 2).unwrap().try_into().unwrap())));
        }
    }
    all
}

const TAGS: [(&str, &str); 14] = [
    ("loss", "train/loss"),
    ("lr", "train/lr"),
    ("accuracy", "train/accuracy"),
    ("images_per_second", "train/images_per_second"),
    ("drop_fraction", "mask/drop_fraction"),
    ("mask_overlap", "mask/overlap"),
    ("density", "mask/density"),
    ("first_mask_overlap", "mask/first_mask_overlap"),
    ("ever_active", "mask/ever_active"),
    ("dead_channels", "mask/dead_channels"),
    ("epoch_loss", "epoch/loss"),
    ("epoch_accuracy", "epoch/accuracy"),
    ("kl", "epoch/kl"),
    ("seconds", "epoch/seconds"),
];

/// The scalars that the log and the summary of a run ask for.
fn expected(run: &Path) -> Vec<Scalar> {
    let log = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let mut all = vec![];
    for line in log.lines() {
        let point: Value = serde_json::from_str(line).unwrap();
        let step = point["step"].as_u64().unwrap();
        for (key, value) in point.as_object().unwrap() {
            match (TAGS.iter().find(|(known, _)| known == key), value) {
                (Some((_, tag)), value) => all.push((step, tag.to_string(), value.as_f64().unwrap() as f32)),
                (None, Value::Object(layers)) => all.extend(layers.iter().map(|(layer, density)| {
                    (step, format!("density_by_layer/{layer}"), density.as_f64().unwrap() as f32)
                })),
                (None, _) => assert!(["step", "epoch"].contains(&key.as_str()), "{key}"),
            }
        }
    }
    let said = summary(run);
    for (key, value) in said["test"].as_object().unwrap().iter().filter(|(_, value)| value.is_number()) {
        all.push((said["steps"].as_u64().unwrap(), format!("test/{key}"), value.as_f64().unwrap() as f32));
    }
    all
}

fn assert_events_are_the_log(run: &Path) {
    let (found, expected) = (scalars(run), expected(run));
    for tag in ["train/loss", "mask/ever_active", "density_by_layer/fc.weight", "epoch/accuracy", "test/ece"] {
        assert!(found.iter().any(|scalar| scalar.1 == tag), "{tag}");
    }
    assert_eq!(found, expected);
    let mut at: Vec<(u64, &str)> = found.iter().map(|(step, tag, _)| (*step, tag.as_str())).collect();
    at.sort_unstable();
    assert!(at.windows(2).all(|pair| pair[0] != pair[1]), "a number of a step is there twice");
}

#[test]
fn events_of_an_interrupted_and_resumed_run_are_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let settings = ["train.batch_size=32", "train.log_every=3"];
    let command = || {
        let mut command = train("cigl", &run, &settings);
        command.args(["--resume", "--tensorboard"]);
        command
    };
    // Twenty steps and a dozen points an epoch: both moments lie beyond the last checkpoint.
    let hits = [30, 45].map(|lines| kill_at(command(), &run, Moment::Logged(lines)));
    assert_eq!(hits, [true, true]);
    assert!(!scalars(&run).is_empty(), "numbers are there while the run goes on");
    succeed(command());
    assert_events_are_the_log(&run);
}

#[test]
fn events_are_written_when_asked_for_and_for_finished_runs_too() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path(), "run", "rigl", &[]);
    assert_eq!(events_files(&run), [] as [PathBuf; 0]);
    let other = run.join("events.out.tfevents.1.elsewhere");
    for _ in 0..2 {
        let mut again = resume(&run);
        again.arg("--tensorboard");
        succeed(again);
        assert_events_are_the_log(&run);
    }
    // Those of another program are left alone, and without being asked for events stay as they are.
    std::fs::write(&other, "not ours").unwrap();
    let before = events_files(&run);
    let mut again = resume(&run);
    again.arg("--tensorboard");
    succeed(again);
    succeed(resume(&run));
    assert_eq!(events_files(&run).len(), before.len());
    assert_eq!(std::fs::read_to_string(other).unwrap(), "not ours");
}
