//! What the assembler says about the kernels it made, `ptxas -v`, read from NVRTC's log.

/// One kernel's use of a multiprocessor on one architecture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// The kernel, or a device function that was not inlined.
    pub(crate) name: String,
    /// Registers a thread. 0 for a function: its caller's count includes it.
    pub(crate) registers: u32,
    /// Static shared memory a block, in bytes.
    pub(crate) shared: u32,
    /// Local memory a thread, in bytes: arrays that are not kept in registers, and spills.
    pub(crate) stack: u32,
    /// Bytes a thread stores to and loads from local memory because registers ran out.
    pub(crate) spills: [u32; 2],
}

/// The kernels and functions of a log, in its order.
pub(crate) fn usage(log: &str) -> Vec<Usage> {
    let mut all: Vec<Usage> = Vec::new();
    for line in log.lines() {
        // "ptxas info    : Used 10 registers" and, a line that goes on, "ptxas         .     0 bytes stack frame".
        let line = line
            .trim_start_matches("ptxas")
            .trim_start()
            .trim_start_matches("info")
            .trim_start_matches([' ', ':', '.']);
        if let Some(name) = line.strip_prefix("Function properties for ") {
            all.push(Usage { name: name.trim().into(), ..Usage::default() });
        }
        let Some(last) = all.last_mut() else { continue };
        for (number, what) in line.split(',').filter_map(counted) {
            match what {
                "bytes stack frame" => last.stack = number,
                "bytes spill stores" => last.spills[0] = number,
                "bytes spill loads" => last.spills[1] = number,
                "registers" => last.registers = number,
                "bytes smem" => last.shared = number,
                _ => {}
            }
        }
    }
    all
}

/// `Used 32 registers` as (32, "registers").
fn counted(part: &str) -> Option<(u32, &str)> {
    let part = part.trim().trim_start_matches("Used ").trim_start_matches("used ");
    let (number, what) = part.split_once(' ')?;
    Some((number.parse().ok()?, what))
}

/// What makes a kernel slow although it compiles: registers spilled to memory, and asynchronous matrix products (wgmma)
/// that the assembler made wait for each other.
pub(crate) fn problems(log: &str) -> Vec<String> {
    let spilled = usage(log).into_iter().filter(|usage| usage.spills != [0, 0]);
    let spilled = spilled.map(|usage| {
        format!("{} spills registers: {} bytes stored, {} loaded", usage.name, usage.spills[0], usage.spills[1])
    });
    let serialised = |line: &&str| {
        line.contains("wgmma") && line.contains("serialized")
            || ["C7508", "C7511", "C7519"].iter().any(|c| line.contains(c))
    };
    let lines = log.lines().filter(serialised);
    spilled.chain(lines.map(|line| format!("wgmma: {}", line.trim()))).collect()
}

/// The compiler's own warnings, with file and line.
pub(crate) fn warnings(log: &str) -> impl Iterator<Item = &str> {
    log.lines().filter(|line| line.contains("): warning"))
}

#[cfg(test)]
mod tests {
    use super::*;

    // What NVRTC 12.6 says of a kernel held to 64 registers that wants more, and of one with a function not inlined.
    const LOG: &str = "\
conv.cu(12): warning #177-D: variable \"unused\" was declared but never referenced
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'spill' for 'sm_80'
ptxas info    : Function properties for spill
ptxas         .     624 bytes stack frame, 872 bytes spill stores, 896 bytes spill loads
ptxas info    : Used 64 registers, used 0 barriers, 624 bytes cumulative stack size, 372 bytes cmem[0]
ptxas info    : Compiling entry function 'tile' for 'sm_80'
ptxas info    : Function properties for tile
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers, 32768 bytes smem, 400 bytes cmem[0]
";

    #[test]
    fn registers_shared_memory_stack_and_spills_are_read() {
        let spill = Usage { name: "spill".into(), registers: 64, shared: 0, stack: 624, spills: [872, 896] };
        let tile = Usage { name: "tile".into(), registers: 128, shared: 32768, stack: 0, spills: [0, 0] };
        assert_eq!(usage(LOG), [spill, tile]);
    }

    #[test]
    fn spills_and_serialised_wgmma_are_problems_and_warnings_are_not() {
        assert_eq!(problems(LOG), ["spill spills registers: 872 bytes stored, 896 loaded"]);
        let wgmma = "ptxas info    : (C7508) Potential Performance Loss: wgmma.mma_async instructions are serialized due to \
                     insufficient register resources for the wgmma pipeline in the function 'tile'";
        assert_eq!(problems(wgmma), [format!("wgmma: {wgmma}")]);
        assert_eq!(warnings(LOG).count(), 1);
    }
}
