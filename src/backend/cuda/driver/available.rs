//! The drivers that tests can use on this machine.

use super::real::Real;
#[cfg(simt)]
use super::simt::{SCHEDULES, Simt};
use super::{Driver, Graph};
use crate::backend::parity::mutated;

/// The first GPU. None without one, which `REQUIRE_GPU=1` makes a failure.
pub(crate) fn gpu() -> Option<Real> {
    match Real::open(0) {
        Ok(real) => Some(real),
        Err(why) if std::env::var("REQUIRE_GPU").is_ok_and(|value| value == "1") => panic!("REQUIRE_GPU=1: {why}"),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

/// Every driver that runs kernels, with a name: the engine under each schedule, and the first GPU.
pub(crate) fn drivers() -> Vec<(String, Box<dyn Driver>)> {
    let mut all: Vec<(String, Box<dyn Driver>)> = vec![];
    #[cfg(simt)]
    for schedule in SCHEDULES {
        all.push((format!("simt with {schedule:?}"), Box::new(Simt::new(schedule))));
    }
    if !mutated() {
        all.extend(gpu().map(|real| (real.device(), Box::new(real) as Box<dyn Driver>)));
    }
    all
}

#[test]
fn a_recording_runs_when_it_is_replayed_and_as_often() {
    for (name, mut on) in drivers() {
        let [a, b] = [(); 2].map(|()| on.allocate(1024).unwrap());
        let read = |on: &mut dyn Driver, at| {
            let mut bytes = [0xaa; 1024];
            on.read(at, &mut bytes).unwrap();
            bytes
        };
        on.write(a, &[1; 1024]).unwrap();
        on.begin_capture().unwrap();
        on.copy(a, b, 1024).unwrap();
        let graph = on.end_capture().unwrap();
        assert_eq!(read(on.as_mut(), b), [0; 1024], "{name}");
        for value in [1, 2] {
            on.write(a, &[value; 1024]).unwrap();
            on.replay(graph).unwrap();
            assert_eq!(read(on.as_mut(), b), [value; 1024], "{name}");
        }
        assert!(on.replay(Graph(1)).is_err(), "{name}");
        on.forget_graphs();
        assert!(on.replay(graph).is_err(), "{name}");
        assert!(on.end_capture().is_err(), "{name}");
    }
}

#[test]
fn what_cannot_be_recorded_is_refused_and_leaves_the_recording_as_it_was() {
    for (name, mut on) in drivers() {
        let [a, b] = [(); 2].map(|()| on.allocate(64).unwrap());
        on.begin_capture().unwrap();
        let empty = on.end_capture().unwrap();
        on.begin_capture().unwrap();
        on.copy(a, b, 64).unwrap();
        let refused = [
            ("memory was asked for", on.allocate(64).err()),
            ("a write was asked for", on.write(a, &[2; 64]).err()),
            ("a read was asked for", on.read(b, &mut [0]).err()),
            ("a recording was asked for", on.begin_capture().err()),
            ("a replay was asked for", on.replay(empty).err()),
        ];
        for (what, error) in refused {
            let error = error.unwrap_or_else(|| panic!("{name}: {what} and given")).to_string();
            assert!(error.ends_with(&format!("{what} while launches are recorded")), "{name}: {error}");
        }
        let graph = on.end_capture().unwrap();
        on.write(a, &[3; 64]).unwrap();
        on.replay(graph).unwrap();
        let mut bytes = [0; 64];
        on.read(b, &mut bytes).unwrap();
        assert_eq!(bytes, [3; 64], "{name}");
    }
}
