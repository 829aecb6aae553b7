//! Compiles the kernels for the CPU, for tests: feature `simt`.

use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::Result;
use crate::kernels::Kernels;

/// Every kernel source as C++, with an entry for each kernel that the engine can find by name.
pub(crate) fn simt(kernels: &Kernels) -> Result<()> {
    let engine = Path::new("src/backend/cuda/driver/simt");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-changed={}", engine.display());
    println!("cargo::rerun-if-env-changed=CIGL_SANITIZE");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(2).debug(true).include("kernels").include(engine).include(".");
    build.flag("-Wno-unknown-pragmas").flag("-ftls-model=initial-exec");
    build.files(["engine.cpp", "fiber.cpp", "memory.cpp"].map(|file| engine.join(file)));
    if env::var("TARGET") == env::var("HOST") && has_fma() {
        build.flag("-march=x86-64-v3");
    }
    // For .ci/sanitize, which also loads the sanitizer's library before all others.
    if env::var("CIGL_SANITIZE").is_ok_and(|value| value == "address") {
        build.flag("-fsanitize=address").flag("-fno-omit-frame-pointer");
        println!("cargo::rustc-link-arg=-lasan");
    }
    for (file, source) in kernels.files().into_iter().filter_map(|file| kernels.unit(file)).map(|(source, _)| source) {
        let entries: String = declared(source).iter().map(|name| format!("SIMT_ENTRY({name});\n")).collect();
        let unit = out.join(file).with_extension("cpp");
        let text = format!("#include \"kernels/{file}\"\n{entries}");
        if fs::read_to_string(&unit).ok().as_ref() != Some(&text) {
            fs::write(&unit, text).map_err(|e| format!("{}: {e}", unit.display()))?;
        }
        build.file(unit);
    }
    // Entries register themselves, so the linker must not drop a file that nobody names.
    build.link_lib_modifier("+whole-archive");
    match build.try_compile("cigl_simt") {
        Ok(()) => println!("cargo::rustc-cfg=simt"),
        Err(e) if env::var("REQUIRE_SIMT").is_ok_and(|v| v == "1") => {
            return Err(format!("the kernels do not compile for the CPU: {e}"));
        }
        Err(e) => println!("cargo::warning=tests of the kernels on the CPU are left out: {e}"),
    }
    Ok(())
}

/// The kernels that a source declares.
fn declared(source: &str) -> Vec<&str> {
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
