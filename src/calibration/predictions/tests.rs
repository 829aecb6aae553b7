//! Every format, every type of element, and every way in which a file can be wrong.

use std::io::Write;

use half::{bf16, f16};
use npyz::zip::write::FileOptions;
use npyz::zip::{CompressionMethod, ZipWriter};
use tempfile::TempDir;

use super::*;
use crate::calibration::{Evaluation, Options, evaluate};

const CLASSES: usize = 3;
/// Logits (4, 3) that f16 holds exactly, and labels.
const LOGITS: [f32; 12] = [2.0, 0.5, -1.0, 0.0, 3.0, 0.25, -0.5, 1.5, 1.25, 4.0, -2.0, 0.0];
const LABELS: [u32; 4] = [0, 1, 2, 1];

/// An array as NumPy writes it.
fn npy(descr: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(bytes);
    file
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn labels_npy(labels: &[i64]) -> Vec<u8> {
    let bytes: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
    npy("<i8", &format!("{},", labels.len()), &bytes)
}

fn logits_npy() -> Vec<u8> {
    npy("<f4", "4, 3", &f32s(&LOGITS))
}

fn npz(arrays: &[(&str, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in arrays {
        zip.start_file(format!("{name}.npy"), FileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A safetensors file of (name, type, shape, bytes).
fn safetensors(tensors: &[(&str, &str, &str, Vec<u8>)]) -> Vec<u8> {
    let (mut entries, mut data) = (vec![], Vec::<u8>::new());
    for (name, dtype, shape, bytes) in tensors {
        let (from, to) = (data.len(), data.len() + bytes.len());
        entries.push(format!(r#""{name}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{from},{to}]}}"#));
        data.extend(bytes);
    }
    let header = format!("{{{}}}", entries.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

fn write(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn measure(path: &Path, labels: Labels, kind: Option<Kind>) -> Result<Evaluation> {
    let file = Predictions::open(path, labels, kind)?;
    let mut evaluator = Evaluator::new(file.classes(), Options::default());
    file.evaluate(&mut evaluator)?;
    evaluator.finish()
}

/// Text is f64, whose softmax differs from that of f32 in its last bits.
fn assert_same(found: &Evaluation, name: &str) {
    let expected = expected();
    if !name.ends_with("csv") {
        assert_eq!(*found, expected, "{name}");
    }
    let numbers =
        |m: &crate::calibration::Metrics| [m.accuracy, m.nll, m.brier, m.ece, m.mce, m.class_ece, m.aurc.unwrap()];
    for (a, b) in numbers(&found.metrics).into_iter().zip(numbers(&expected.metrics)) {
        assert!((a - b).abs() < 1e-7, "{name}: {a} is not {b}");
    }
}

fn expected() -> Evaluation {
    evaluate(Scores::Logits(&LOGITS), &LABELS, CLASSES, &Options::default()).unwrap()
}

#[test]
fn every_format_gives_the_same_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let labels = labels_npy(&[0, 1, 2, 1]);
    let bytes: Vec<u8> = LABELS.iter().map(|&label| label as u8).collect();
    let rows = |with_labels: bool| -> String {
        let row = |(row, label): (&[f32], u32)| {
            let cells: Vec<String> = row.iter().map(f32::to_string).collect();
            format!("{}{}\n", if with_labels { format!("{label},") } else { String::new() }, cells.join(","))
        };
        LOGITS.chunks(CLASSES).zip(LABELS).map(row).collect()
    };
    let files = [
        ("a.npz", npz(&[("logits", logits_npy()), ("labels", labels.clone())], CompressionMethod::Stored)),
        ("b.npz", npz(&[("labels", labels.clone()), ("logits", logits_npy())], CompressionMethod::Deflated)),
        ("c.csv", rows(true).into_bytes()),
        ("d.csv", format!("label,a,b,c\r\n{}", rows(true).replace('\n', "\r\n")).into_bytes()),
        (
            "e.safetensors",
            safetensors(&[("labels", "U8", "4", bytes.clone()), ("logits", "F32", "4,3", f32s(&LOGITS))]),
        ),
    ];
    for (name, bytes) in files {
        let path = write(&folder, name, bytes);
        assert_same(&measure(&path, Labels::Inside, None).unwrap(), name);
    }
    let scores = [
        write(&folder, "f.npy", logits_npy()),
        write(&folder, "g.csv", rows(false)),
        write(&folder, "h.npz", npz(&[("logits", logits_npy())], CompressionMethod::Stored)),
    ];
    let labels = [
        write(&folder, "l.npy", labels),
        write(&folder, "m.npy", npy("|u1", "4, 1", &bytes)),
        write(&folder, "n.npy", npy("<f4", "4,", &f32s(&[0.0, 1.0, 2.0, 1.0]))),
        write(&folder, "o.csv", "name,label\nx,0\ny,1\nz,2\n\"a,b\",1\n"),
        folder.path().join("a.npz"),
        folder.path().join("e.safetensors"),
    ];
    for scores in &scores {
        for labels in &labels {
            let found = measure(scores, Labels::File(labels), None).unwrap();
            assert_same(&found, scores.to_str().unwrap());
        }
    }
}

#[test]
fn every_width_of_float_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let halves: Vec<u8> = LOGITS.iter().flat_map(|&z| f16::from_f32(z).to_le_bytes()).collect();
    let brains: Vec<u8> = LOGITS.iter().flat_map(|&z| bf16::from_f32(z).to_le_bytes()).collect();
    let doubles: Vec<u8> = LOGITS.iter().flat_map(|&z| f64::from(z).to_le_bytes()).collect();
    let labels = write(&folder, "labels.npy", labels_npy(&[0, 1, 2, 1]));
    let tensor = |dtype: &str, bytes: &[u8]| safetensors(&[("logits", dtype, "4,3", bytes.to_vec())]);
    for (name, bytes) in [
        ("f16.npy", npy("<f2", "4, 3", &halves)),
        ("f64.npy", npy("<f8", "4, 3", &doubles)),
        ("f16.safetensors", tensor("F16", &halves)),
        ("bf16.safetensors", tensor("BF16", &brains)),
        ("f64.safetensors", tensor("F64", &doubles)),
    ] {
        let found = measure(&write(&folder, name, bytes), Labels::File(&labels), None).unwrap();
        // f64 sums are f64's own: the last bits of the f32 softmax differ.
        let (found, expected) = (found.metrics, expected().metrics);
        assert!((found.nll - expected.nll).abs() < 1e-9 && (found.ece - expected.ece).abs() < 1e-6, "{name}");
        assert_eq!((found.n, found.accuracy), (expected.n, expected.accuracy), "{name}");
    }
}

#[test]
fn what_the_scores_are_is_concluded_from_the_first_rows_unless_it_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let open = |text: &str, kind| {
        let path = write(&folder, "a.csv", text);
        Predictions::open(&path, Labels::Inside, kind).map(|file| (file.kind(), file.kind_is_a_guess()))
    };
    assert_eq!(open("0,0.5,0.5\n1,0.25,0.75\n", None).unwrap(), (Kind::Probs, true));
    assert_eq!(open("0,2.5,-0.5\n1,0.25,0.75\n0,7,1\n", None).unwrap(), (Kind::Logits, true));
    // Log-probabilities are logits.
    assert_eq!(open("0,-0.7,-0.7\n", None).unwrap(), (Kind::Logits, true));
    assert_eq!(open("0,0.5,0.5\n", Some(Kind::Logits)).unwrap(), (Kind::Logits, false));
    let error = open("0,0.5,0.4\n", None).unwrap_err().to_string();
    assert!(error.contains("row 0") && error.contains("0.9000") && error.contains("--kind logits"), "{error}");
}

#[test]
fn files_longer_than_a_chunk_are_read_in_order() {
    let folder = tempfile::tempdir().unwrap();
    // Two chunks and a half of two classes; the scores of row i name it.
    let rows = CHUNK / 8 * 5 / 2;
    let scores: Vec<f32> = (0..rows).flat_map(|i| [i as f32, -1.0]).collect();
    let path = write(&folder, "a.npy", npy("<f4", &format!("{rows}, 2"), &f32s(&scores)));
    let labels: Vec<u8> = (0..rows).map(|i| i.is_multiple_of(7).into()).collect();
    let labels = write(&folder, "l.npy", npy("|u1", &format!("{rows},"), &labels));
    let mut file = Predictions::open(&path, Labels::File(&labels), None).unwrap();
    let (mut seen, mut chunks) = (0, 0);
    while let Some(chunk) = file.next_chunk().unwrap() {
        assert_eq!(chunk.first_row, seen);
        for (i, &label) in chunk.labels.iter().enumerate() {
            let row = seen + i as u64;
            assert_eq!((chunk.scores.get(2 * i), label), (row as f64, u32::from(row.is_multiple_of(7))));
        }
        seen += chunk.labels.len() as u64;
        chunks += 1;
    }
    assert_eq!((seen, chunks), (rows as u64, 3));
}

#[test]
fn out_of_distribution_files_need_no_labels() {
    let folder = tempfile::tempdir().unwrap();
    for text in ["1,0.5,0.25,0.25\n0,0.125,0.75,0.125\n", "0.5,0.25,0.25\n0.125,0.75,0.125\n"] {
        let path = write(&folder, "a.csv", text);
        let file = Predictions::open(&path, Labels::Unneeded { classes: CLASSES }, None).unwrap();
        assert_eq!(file.confidences().unwrap().len(), 2);
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name_and_row() {
    let folder = tempfile::tempdir().unwrap();
    let labels = |of: &[i64]| labels_npy(of);
    let both =
        |scores: Vec<u8>, of: &[i64]| npz(&[("logits", scores), ("labels", labels(of))], CompressionMethod::Stored);
    let mut nan = LOGITS;
    nan[7] = f32::NAN;
    let whole = both(logits_npy(), &[0, 1, 2, 1]);
    let mut flipped = whole.clone();
    let at = flipped.windows(4).position(|four| four == 3f32.to_le_bytes()).unwrap();
    flipped[at] ^= 1;
    let deflated = npz(&[("logits", npy("<f4", "4, 3", &f32s(&nan)))], CompressionMethod::Deflated);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nan.npz", both(npy("<f4", "4, 3", &f32s(&nan)), &[0, 1, 2, 1]), "row 2 holds NaN"),
        ("label.npz", both(logits_npy(), &[0, 1, 3, 1]), "row 2 has label 3, expected a whole number from 0 to 2"),
        ("minus.npz", both(logits_npy(), &[0, -1, 2, 1]), "row 1 has label -1"),
        ("short.npz", both(logits_npy(), &[0, 1, 2]), "shape [3], expected 4 labels"),
        ("line.npz", both(npy("<f4", "12,", &f32s(&LOGITS)), &[0; 12]), "shape [12], expected (samples, classes)"),
        ("one.npz", both(npy("<f4", "12, 1", &f32s(&LOGITS)), &[0; 12]), "2 to"),
        ("ints.npz", both(npy("<i4", "4, 3", &f32s(&LOGITS)), &[0; 4]), "integers"),
        ("none.npz", both(npy("<f4", "0, 3", &[]), &[]), "no samples"),
        ("alone.npz", npz(&[("logits", logits_npy())], CompressionMethod::Stored), "no labels"),
        (
            "other.npz",
            npz(&[("scores", logits_npy())], CompressionMethod::Stored),
            "[scores], expected logits or probs",
        ),
        ("two.npz", npz(&[("logits", logits_npy()), ("probs", logits_npy())], CompressionMethod::Stored), "--kind"),
        ("zip.npz", b"PK".to_vec(), "not a zip archive, or truncated"),
        ("cut.npz", whole[..whole.len() - 30].to_vec(), "not a zip archive, or truncated"),
        ("flipped.npz", flipped, "checksum"),
        ("deflated.npz", deflated[..60].to_vec(), "not a zip archive, or truncated"),
        ("long.npz", both(npy("<f4", "5, 3", &f32s(&LOGITS)), &[0; 5]), "truncated"),
        (
            "wide.npz",
            both(npy("<f4", "4294967296, 4294967296", &f32s(&LOGITS)), &[0; 5]),
            "its shape [4294967296, 4294967296] needs too many",
        ),
        ("empty.csv", vec![], "no samples"),
        ("header.csv", b"label,a,b\n".to_vec(), "no samples"),
        ("ragged.csv", b"0,0.5,0.5\n1,0.5,0.25,0.25\n".to_vec(), "row 1 (line 2) has 4 cells, expected 3"),
        ("word.csv", b"0,0.5,0.5\n1,0.5,half\n".to_vec(), "row 1 (line 2) holds \"half\""),
        ("name.csv", b"0,0.5,0.5\ncat,0.5,0.5\n".to_vec(), "row 1 has label cat"),
        ("sum.csv", b"0,0.5,0.5\n1,0.5,0.5\n1,0.5,0.25\n".to_vec(), "row 2 adds up to 0.7500"),
        ("minus.csv", b"0,0.5,0.5\n1,0.5,0.5\n1,1.5,-0.5\n".to_vec(), "row 2 holds 1.5"),
        ("narrow.csv", b"0,0.5\n".to_vec(), "1 columns of scores, expected 2 to"),
        ("utf.csv", b"0,0.5,\xff\xfe\n".to_vec(), "cannot be read"),
        ("empty.safetensors", vec![], "not a safetensors file, or truncated"),
        ("header.safetensors", u64::MAX.to_le_bytes().to_vec(), "not a safetensors file, or truncated"),
        (
            "cut.safetensors",
            safetensors(&[("labels", "U8", "4", vec![0; 4]), ("logits", "F32", "4,3", f32s(&LOGITS))])[..130].to_vec(),
            "truncated",
        ),
        ("bool.safetensors", safetensors(&[("logits", "BOOL", "4,3", vec![0; 12])]), "BOOL"),
        ("a.txt", vec![], ".npz, .npy, .csv or .safetensors"),
    ];
    for (name, bytes, part) in cases {
        let path = write(&folder, name, bytes);
        let error = measure(&path, Labels::Inside, None).unwrap_err();
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(next) = cause {
            message += &format!(": {next}");
            cause = next.source();
        }
        assert!(message.contains(part) && message.contains(name), "{name}: {message:?} lacks {part:?}");
    }
}

#[test]
fn labels_that_do_not_fit_a_table_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let scores = write(&folder, "scores.csv", "0.5,0.5\n0.25,0.75\n0.5,0.5\n");
    for (name, bytes, part) in [
        ("a.csv", b"0\n1\n".to_vec(), "2 labels for 3 or more"),
        ("b.csv", b"0\n1\n1\n0\n".to_vec(), "4 labels for 3 rows"),
        ("c.npy", labels_npy(&[0, 1]), "2 labels for 3 or more"),
        ("d.npy", labels_npy(&[0, 1, 0, 1]), "4 labels for 3 rows"),
        ("e.csv", b"0\n1\n2\n".to_vec(), "row 2 has label 2"),
    ] {
        let labels = write(&folder, name, bytes);
        let message = measure(&scores, Labels::File(&labels), None).unwrap_err().to_string();
        assert!(message.contains(part), "{name}: {message}");
    }
}

#[test]
fn a_fit_reads_everything_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let labels = write(&folder, "l.npy", labels_npy(&[0, 1, 2, 1]));
    let path = write(&folder, "a.npy", logits_npy());
    let (values, found) = Predictions::open(&path, Labels::File(&labels), None).unwrap().read_all().unwrap();
    assert_eq!((values, found), (Values::F32(LOGITS.to_vec()), LABELS.to_vec()));
}
