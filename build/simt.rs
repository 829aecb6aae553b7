//! Compiles the kernels for the CPU, for tests: feature `simt`.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// Every kernel source as C++, with an entry for each kernel that the engine can find by name.
pub(crate) fn simt() {
    let engine = Path::new("src/backend/cuda/driver/simt");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-changed={}", engine.display());
    println!("cargo::rerun-if-env-changed=CIGL_SANITIZE");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(2).debug(true).include("kernels").include(engine).include(".");
    build.flag("-Wno-unknown-pragmas").flag("-ftls-model=initial-exec").file(engine.join("engine.cpp"));
    if env::var("TARGET") == env::var("HOST") && has_fma() {
        build.flag("-march=x86-64-v3");
    }
    // For .ci/sanitize, which also loads the sanitizer's library before all others.
    if env::var("CIGL_SANITIZE").is_ok_and(|value| value == "address") {
        build.flag("-fsanitize=address").flag("-fno-omit-frame-pointer");
        println!("cargo::rustc-link-arg=-lasan");
    }
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let entries: String = kernels(&text).iter().map(|name| format!("SIMT_ENTRY({name});\n")).collect();
        let unit = out.join(path.file_name().expect("a file")).with_extension("cpp");
        let text = format!("#include \"{}\"\n{entries}", path.display());
        if fs::read_to_string(&unit).ok().as_ref() != Some(&text) {
            fs::write(&unit, text).unwrap_or_else(|e| panic!("{}: {e}", unit.display()));
        }
        build.file(unit);
    }
    // Entries register themselves, so the linker must not drop a file that nobody names.
    build.link_lib_modifier("+whole-archive");
    match build.try_compile("cigl_simt") {
        Ok(()) => println!("cargo::rustc-cfg=simt"),
        Err(e) if env::var("REQUIRE_SIMT").is_ok_and(|v| v == "1") => {
            panic!("the kernels do not compile for the CPU: {e}")
        }
        Err(e) => println!("cargo::warning=tests of the kernels on the CPU are left out: {e}"),
    }
}

/// All kernel sources, in order.
fn sources() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir("kernels")
        .expect("the kernels folder is part of the package")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "cu"))
        .collect();
    paths.sort();
    paths
}

/// The kernels that a source declares.
fn kernels(source: &str) -> Vec<&str> {
    let declarations = source.split("extern \"C\" __global__ void __launch_bounds__(").skip(1);
    declarations.filter_map(|after| Some(after.split_once(')')?.1.split('(').next()?.trim())).collect()
}

#[cfg(target_arch = "x86_64")]
fn has_fma() -> bool {
    std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_fma() -> bool {
    false
}
