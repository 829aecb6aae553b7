//! The CUDA kernels in this program, as `cigl info` lists them.

use serde_json::{Value, json};

use crate::backend::cuda::choice::dotted;
use crate::backend::cuda::images::{architectures, compiled, compiler};
use crate::report::table::Table;

/// Where the kernels come from, in a line.
pub(super) fn origin() -> String {
    match compiler() {
        Some(version) => format!("for {}, compiled with NVRTC {}", architectures().join(", "), dotted(version)),
        None => "compiled when a GPU is first used: this program was built without NVRTC".into(),
    }
}

/// One row a kernel: threads and shared memory of a block, registers of a thread on each architecture.
pub(super) fn table() -> Option<Table> {
    compiler()?;
    let machine_code: Vec<&str> = architectures().into_iter().filter(|name| name.starts_with("sm_")).collect();
    let fixed = ["kernel", "file", "threads", "shared"].map(String::from);
    let mut table = Table::new(fixed.into_iter().chain(machine_code.iter().map(|name| name.to_string())));
    for kernel in compiled() {
        let shared = kernel.usage.values().map(|usage| usage.shared).max().unwrap_or(0);
        let fixed = [kernel.name, kernel.file.into(), kernel.max_threads.to_string(), shared.to_string()];
        let registers = machine_code.iter().map(|name| kernel.usage.get(name).map_or(0, |usage| usage.registers));
        table.row(fixed.into_iter().chain(registers.map(|registers| registers.to_string())));
    }
    Some(table)
}

/// The same, with local memory and spills.
pub(super) fn json() -> Value {
    let kernels = compiled().into_iter().map(|kernel| {
        let usage = kernel.usage.iter().map(|(architecture, usage)| {
            let of_image = json!({
                "registers": usage.registers,
                "shared_bytes": usage.shared,
                "local_bytes": usage.stack,
                "spilled_bytes": usage.spills.iter().sum::<u32>(),
            });
            (architecture.to_string(), of_image)
        });
        let usage: serde_json::Map<String, Value> = usage.collect();
        json!({"name": kernel.name, "file": kernel.file, "threads": kernel.max_threads, "usage": usage})
    });
    json!({
        "compiler": compiler().map(dotted),
        "architectures": architectures(),
        "kernels": kernels.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::kernels::KERNELS;

    #[test]
    fn every_kernel_is_listed_and_the_pinned_compiler_spills_none() {
        let listed = json();
        let Some(version) = compiler() else {
            eprintln!("skipped: the build found no NVRTC");
            return;
        };
        let listed = listed["kernels"].as_array().unwrap();
        assert_eq!(listed.len(), KERNELS.len());
        assert!(KERNELS.iter().all(|kernel| listed.iter().any(|listed| listed["name"] == kernel.name)));
        let spilled = listed.iter().flat_map(|kernel| kernel["usage"].as_object().unwrap().values());
        assert!(version != (12, 6) || spilled.into_iter().all(|usage| usage["spilled_bytes"] == 0));
        // A row a kernel, a line of names and a rule.
        assert_eq!(table().unwrap().to_string().lines().count(), KERNELS.len() + 2);
    }
}
