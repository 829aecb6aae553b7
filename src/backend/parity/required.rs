//! What the tests use where it is there. `REQUIRE_GPU=1`, `REQUIRE_SIMT=1` and `REQUIRE_NVRTC=1` make its absence a failure;
//! otherwise a line says what was left out.

use std::io::{Write, stderr};

use crate::backend::cuda::driver::card::Card;
use crate::backend::cuda::images;

/// What was found, or an error where what is absent is required.
fn judge(variable: &str, required: bool, found: Result<String, String>) -> Result<String, String> {
    match found {
        Ok(there) => Ok(format!("tested: {there}")),
        Err(absent) if required => Err(format!("{absent} ({variable}=1)")),
        Err(absent) => Ok(format!("skipped: {absent}")),
    }
}

fn found_or_not_required(variable: &str, found: Result<String, String>) {
    let required = std::env::var(variable).is_ok_and(|value| value == "1");
    match judge(variable, required, found) {
        // Past the capture of a test's output: this line is there to be seen.
        Ok(line) => writeln!(stderr(), "{line}").unwrap(),
        Err(why) => panic!("{why}"),
    }
}

#[test]
fn a_gpu_is_there_or_not_required() {
    let found = Card::count().map_err(|why| why.to_string()).and_then(|gpus| match gpus {
        0 => Err("no GPU is visible".into()),
        _ => Card::find(0).map(|card| format!("the kernels on {}", card.describe())).map_err(|why| why.to_string()),
    });
    found_or_not_required("REQUIRE_GPU", found.map_err(|why| format!("the kernels on a GPU: {why}")));
}

#[test]
fn the_kernels_on_the_cpu_are_there_or_not_required() {
    let absent = "the kernels on the CPU: the build found no C++ compiler that compiles them";
    let found = if cfg!(simt) { Ok("the kernels on the CPU".into()) } else { Err(absent.into()) };
    found_or_not_required("REQUIRE_SIMT", found);
}

#[test]
fn the_kernels_images_are_there_or_not_required() {
    let found = match images::images().len() {
        0 => Err("the kernels' images: the build found no NVRTC".into()),
        images => Ok(format!("the kernels' {images} images for {}", images::architectures().join(", "))),
    };
    found_or_not_required("REQUIRE_NVRTC", found);
}

#[test]
fn only_what_is_required_must_be_there() {
    let absent = || Err("it is not there".to_string());
    assert_eq!(judge("REQUIRE_IT", false, absent()), Ok("skipped: it is not there".into()));
    assert_eq!(judge("REQUIRE_IT", true, absent()), Err("it is not there (REQUIRE_IT=1)".into()));
    assert_eq!(judge("REQUIRE_IT", true, Ok("it".into())), Ok("tested: it".into()));
}
