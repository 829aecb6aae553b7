//! The kernels that a PTX text declares: their parameters, which launches are checked against, and their block size.

/// A kernel's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The entry point.
    pub(crate) name: String,
    /// Bytes of each parameter.
    pub(crate) parameters: Vec<usize>,
    /// Most threads a block may have: `__launch_bounds__`, 1024 without it.
    pub(crate) max_threads: u32,
}

/// Reads the `.entry` directives of a PTX text (PTX ISA, "Kernel and Function Directives: .entry").
pub(crate) fn entries(ptx: &str) -> Vec<Entry> {
    ptx.split(".entry ").skip(1).filter_map(entry).collect()
}

/// One directive: `name(parameters) performance-directives { body }`, where the parameters may be left out.
fn entry(text: &str) -> Option<Entry> {
    let head = text.split('{').next()?;
    let (name, rest) = head.split_at(head.find(|c: char| c == '(' || c.is_whitespace())?);
    let (parameters, directives) = rest.trim_start().strip_prefix('(').map_or((Some(""), rest), |rest| {
        let end = rest.find(')').unwrap_or(rest.len());
        (rest.get(..end), &rest[end..])
    });
    let parameters = parameters?.split(',').filter(|parameter| !parameter.trim().is_empty()).map(bytes);
    let threads = directives.split(".maxntid").nth(1).map(|list| {
        let list = list.split('.').next().unwrap_or(list);
        list.split(',').filter_map(|n| n.trim().parse::<u32>().ok()).product()
    });
    Some(Entry {
        name: name.into(),
        parameters: parameters.collect::<Option<_>>()?,
        max_threads: threads.unwrap_or(1024),
    })
}

/// The size of `.param .u64 name` or `.param .align 8 .b8 name[16]`.
fn bytes(parameter: &str) -> Option<usize> {
    let types =
        [(8, ["u64", "s64", "b64", "f64"]), (4, ["u32", "s32", "b32", "f32"]), (2, ["u16", "s16", "b16", "f16"])];
    let types = types.into_iter().chain([(1, ["u8", "s8", "b8", "pred"])]);
    let words: Vec<&str> = parameter.split_whitespace().collect();
    let has = |name: &str| words.iter().any(|word| word.strip_prefix('.') == Some(name));
    let element = types.into_iter().find(|(_, names)| names.iter().any(|name| has(name)))?.0;
    let count = match words.last()?.split_once('[') {
        Some((_, count)) => count.trim_end_matches(']').parse().ok()?,
        None => 1,
    };
    Some(element * count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_parameter_has_its_size() {
        let ptx = ".visible .entry all(\n\t.param .align 64 .b8 all_param_0[128],\n\t.param .u8 all_param_1,\n\
                   \t.param .u64 .ptr .global .align 4 all_param_2,\n\t.param .f32 all_param_3,\n\t.param .u16 all_param_4\n)\n\
                   .maxntid 128, 2, 1\n.minnctapersm 2\n{\n\t.reg .b16 %rs<2>;\n}\n.visible .entry none()\n{\n\tret;\n}\n";
        let all = Entry { name: "all".into(), parameters: vec![128, 1, 8, 4, 2], max_threads: 256 };
        let none = Entry { name: "none".into(), parameters: vec![], max_threads: 1024 };
        assert_eq!(entries(ptx), [all, none]);
    }
}
