//! Which code a device runs: an embedded image, or kernels compiled when the program starts.

/// A device, as far as code is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Compute capability, major and minor.
    pub(crate) capability: (u32, u32),
    /// The newest CUDA version that its driver supports.
    pub(crate) driver: (u32, u32),
}

/// What to run on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The embedded images of this architecture.
    Embedded(&'static str),
    /// Kernels compiled now, because no embedded image fits, for the reason given.
    Compile(String),
}

/// The first architecture with `mma.sync` for bf16, `ldmatrix` and `cp.async`.
const OLDEST_CAPABILITY: (u32, u32) = (8, 0);

/// The first CUDA version with all functions of the driver that are called.
const OLDEST_DRIVER: (u32, u32) = (12, 0);

/// Chooses among the embedded architectures: the device's own, one of the same generation with a lower minor number
/// (machine code runs on later members of its generation), PTX, which the driver compiles, or kernels compiled now.
///
/// `built_by` is the version of the compiler that made them. Machine code needs a driver of the same major version, PTX one
/// that is no older ("CUDA Compatibility", minor version compatibility).
///
/// The error says why the device can run none at all.
pub(crate) fn choose(
    target: Target,
    embedded: &[&'static str],
    built_by: Option<(u32, u32)>,
) -> Result<Choice, String> {
    let Target { capability, driver } = target;
    if driver < OLDEST_DRIVER {
        return Err(format!(
            "its driver supports CUDA {}, at least {} is needed: install a newer driver",
            dotted(driver),
            dotted(OLDEST_DRIVER)
        ));
    }
    if capability < OLDEST_CAPABILITY {
        return Err(format!(
            "its compute capability is {}, at least {} (Ampere, 2020) is needed",
            dotted(capability),
            dotted(OLDEST_CAPABILITY)
        ));
    }
    let Some(version) = built_by.filter(|_| !embedded.is_empty()) else {
        return Ok(Choice::Compile("this program was built without kernels".into()));
    };
    if driver.0 < version.0 {
        let (driver, version) = (dotted(driver), dotted(version));
        return Ok(Choice::Compile(format!(
            "the kernels were built with CUDA {version}, its driver supports {driver}"
        )));
    }
    let own = own_architecture(capability);
    if let Some(exact) = embedded.iter().find(|name| **name == own) {
        return Ok(Choice::Embedded(exact));
    }
    let of_generation = embedded.iter().filter_map(|name| {
        let number: u32 = name.strip_prefix("sm_")?.parse().ok()?;
        (number / 10 == capability.0 && number % 10 <= capability.1).then_some((number, *name))
    });
    if let Some((_, nearest)) = of_generation.max() {
        return Ok(Choice::Embedded(nearest));
    }
    let ptx = embedded.iter().find(|name| name.starts_with("compute_"));
    match ptx {
        Some(ptx) if version <= driver => Ok(Choice::Embedded(ptx)),
        Some(_) => Ok(Choice::Compile(format!(
            "there are no kernels for {own}, and PTX of CUDA {} is too new for its driver, which supports {}",
            dotted(version),
            dotted(driver)
        ))),
        None => Ok(Choice::Compile(format!("there are no kernels for {own}"))),
    }
}

/// The architecture to compile for now: the device's own, else PTX, if this compiler's output suits its driver.
pub(crate) fn compile_for(
    target: Target,
    compiler: (u32, u32),
    knows: impl Fn(&str) -> bool,
) -> Result<String, String> {
    let (own, ptx) = (own_architecture(target.capability), "compute_80");
    let found = format!("NVRTC {} is there, ", dotted(compiler));
    if target.driver.0 < compiler.0 {
        return Err(format!("{found}but the driver supports CUDA {} only", dotted(target.driver)));
    }
    if knows(&own) {
        return Ok(own);
    }
    match knows(ptx) && compiler <= target.driver {
        true => Ok(ptx.into()),
        false => Err(format!("{found}but does not know {own}")),
    }
}

/// The name of a device's architecture, with the features that only Hopper itself has.
pub(crate) fn own_architecture((major, minor): (u32, u32)) -> String {
    format!("sm_{major}{minor}{}", if (major, minor) == (9, 0) { "a" } else { "" })
}

/// A version as text.
pub(crate) fn dotted((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 5] = ["sm_80", "sm_86", "sm_89", "sm_90a", "compute_80"];

    #[test]
    fn each_device_gets_the_nearest_image_that_runs_on_it() {
        // (capability, driver, embedded, built by, what it gets or a part of why it gets none)
        type Row = (
            (u32, u32),
            (u32, u32),
            &'static [&'static str],
            Option<(u32, u32)>,
            Result<Option<&'static str>, &'static str>,
        );
        let built = Some((12, 6));
        let table: [Row; 19] = [
            ((8, 0), (12, 6), &ALL, built, Ok(Some("sm_80"))),  // A100
            ((8, 6), (12, 6), &ALL, built, Ok(Some("sm_86"))),  // RTX 3090
            ((8, 7), (12, 6), &ALL, built, Ok(Some("sm_86"))),  // Jetson Orin: the highest not above it
            ((8, 9), (12, 6), &ALL, built, Ok(Some("sm_89"))),  // RTX 4090
            ((9, 0), (13, 0), &ALL, built, Ok(Some("sm_90a"))), // H100
            ((8, 6), (12, 0), &ALL, built, Ok(Some("sm_86"))),  // an older driver of the same major version
            ((8, 9), (12, 6), &["sm_80", "compute_80"], built, Ok(Some("sm_80"))),
            ((9, 0), (12, 6), &["sm_80", "sm_90", "compute_80"], built, Ok(Some("sm_90"))),
            ((8, 0), (12, 6), &["sm_86", "compute_80"], built, Ok(Some("compute_80"))), // never a higher minor number
            ((9, 1), (12, 6), &ALL, built, Ok(Some("compute_80"))), // Hopper's own features run on 9.0 alone
            ((10, 0), (13, 0), &ALL, built, Ok(Some("compute_80"))), // B200
            ((12, 0), (12, 8), &ALL, built, Ok(Some("compute_80"))), // RTX 5090
            ((12, 0), (12, 4), &ALL, built, Ok(None)),              // PTX newer than the driver
            ((9, 0), (12, 6), &["sm_80"], built, Ok(None)),         // another generation, and no PTX
            ((9, 0), (12, 6), &ALL, Some((13, 0)), Ok(None)),       // machine code of a newer major version
            ((9, 0), (12, 6), &[], None, Ok(None)),                 // built without a compiler
            ((7, 5), (12, 6), &ALL, built, Err("compute capability is 7.5, at least 8.0")),
            ((8, 0), (11, 8), &ALL, built, Err("supports CUDA 11.8, at least 12.0")),
            ((7, 0), (11, 8), &[], None, Err("install a newer driver")),
        ];
        for (capability, driver, embedded, built_by, expected) in table {
            let case = format!("{capability:?} with driver {driver:?} and {embedded:?} of {built_by:?}");
            match (choose(Target { capability, driver }, embedded, built_by), expected) {
                (Ok(Choice::Embedded(name)), Ok(Some(wanted))) => assert_eq!(name, wanted, "{case}"),
                (Ok(Choice::Compile(_)), Ok(None)) => {}
                (Err(why), Err(part)) => assert!(why.contains(part), "{case}: {why}"),
                (got, wanted) => panic!("{case}: {got:?} instead of {wanted:?}"),
            }
        }
    }

    #[test]
    fn a_compiler_on_the_machine_is_used_if_the_driver_reads_what_it_makes() {
        let before_blackwell =
            |name: &str| ["sm_80", "sm_86", "sm_89", "sm_90", "sm_90a", "compute_80"].contains(&name);
        let target = |capability, driver| Target { capability, driver };
        let compile =
            |capability, driver, compiler| compile_for(target(capability, driver), compiler, before_blackwell);
        assert_eq!(compile((9, 0), (12, 2), (12, 6)).as_deref(), Ok("sm_90a"));
        assert_eq!(compile((12, 0), (13, 0), (12, 6)).as_deref(), Ok("compute_80"));
        assert!(compile((12, 0), (12, 4), (12, 6)).unwrap_err().contains("does not know sm_120"));
        assert!(compile((9, 0), (12, 9), (13, 0)).unwrap_err().contains("supports CUDA 12.9 only"));
    }
}
