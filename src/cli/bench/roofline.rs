//! `cigl bench kernels --model`: what the products of a training step cost at least on a GPU, an estimate.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::backend::cuda::Cuda;
use crate::backend::cuda::driver::nvrtc::report::Usage;
use crate::backend::cuda::driver::tally::{Launch, Notes, Tally};
use crate::backend::cuda::images::compiled;
use crate::backend::cuda::roofline::{
    H100, H200, MULTIPROCESSORS, Product, Rates, occupancy, products, resident_blocks,
};
use crate::backend::{Extent, Precision, StepState};
use crate::cli::args::{BenchArgs, GpuModel};
use crate::cli::output::print;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::{Images, Model};
use crate::report::table::Table;
use crate::train::start;

/// What the kernels for these GPUs are compiled for.
const ARCHITECTURE: &str = "sm_90a";

pub(super) fn run(args: &BenchArgs, model: GpuModel) -> Result<()> {
    let rates = match model {
        GpuModel::H100 => H100,
        GpuModel::H200 => H200,
    };
    let usage: HashMap<String, Usage> = compiled()
        .into_iter()
        .filter_map(|mut kernel| Some((kernel.name, kernel.usage.remove(ARCHITECTURE)?)))
        .collect();
    if usage.is_empty() {
        return Err(Error::Usage(format!(
            "this program was built without NVRTC: there is no compiler's report for {ARCHITECTURE}"
        )));
    }
    let config = Config::resolve(Some(&args.preset), None, &[])?;
    let batch = args.batch.map_or(config.train.batch_size, |batch| batch as usize);
    let launches = launches_of_a_step(&config, batch)?;
    let products = products(&launches);
    let rows = products.iter().map(|product| {
        let usage = usage.get(product.kernel);
        usage.map(|usage| (product, usage)).ok_or_else(|| Error::Device(format!("{}: no report", product.kernel)))
    });
    let rows = rows.collect::<Result<Vec<_>>>()?;
    if args.json {
        let values: Vec<Value> = rows.iter().map(|(product, usage)| json(product, usage, &rates)).collect();
        return print(format_args!("{:#}", Value::Array(values)));
    }
    let mut table = Table::new([
        "kernel",
        "layer",
        "launches",
        "blocks",
        "waves",
        "registers",
        "shared",
        "occupancy (%)",
        "GFLOP",
        "MB",
        "limit (us)",
        "bound by",
    ]);
    for (product, usage) in &rows {
        table.row([
            product.kernel.into(),
            layer(product),
            product.launches.to_string(),
            product.blocks.to_string(),
            format!("{:.2}", waves(product, usage)),
            usage.registers.to_string(),
            usage.shared.to_string(),
            format!("{:.0}", 100.0 * occupancy(usage, product.threads)),
            format!("{:.3}", product.operations / 1e9),
            format!("{:.2}", product.bytes / 1e6),
            format!("{:.1}", 1e6 * product.seconds(&rates)),
            bound(product, &rates).into(),
        ]);
    }
    let seconds: f64 = products.iter().map(|p| f64::from(p.launches) * p.seconds(&rates)).sum();
    let operations: f64 = products.iter().map(|p| f64::from(p.launches) * p.operations).sum();
    let count: u32 = products.iter().map(|p| p.launches).sum();
    print(table)?;
    print(format_args!(
        "\nestimate, nothing was run: {count} of the {} launches of forward and backward pass are products. For {batch} images \
         they do {:.1} GFLOP, which takes at least {:.3} ms at {:.0} TFLOP/s and {:.1} TB/s, rates measured on such a GPU",
        launches.len(),
        operations / 1e9,
        1e3 * seconds,
        rates.bf16 / 1e12,
        rates.bandwidth / 1e12,
    ))
}

/// Every launch of the forward and backward pass of a training step, in bf16, noted by a device that runs nothing.
fn launches_of_a_step(config: &Config, batch: usize) -> Result<Vec<Launch>> {
    let notes = Notes::default();
    let cuda = Cuda::new(Box::new(Tally::new(notes.clone())), Precision::Bf16)?;
    let (shape, published_classes, _) = config.data.dataset.published();
    let classes = config.network.classes.unwrap_or(published_classes);
    let image = [shape.channels, shape.height, shape.width];
    let mut model = Model::new(start::network(config)?, image, classes, Box::new(cuda))?;
    model.reserve()?;
    notes.take();
    let state = StepState { seed: 0, step: 0, statistics_momentum: 0.1, extent: Extent::Dense };
    let images = vec![0.0; batch * image.iter().product::<usize>()];
    model.train_pass(Images::Values(&images), &vec![0.0; batch * classes], state)?;
    Ok(notes.take())
}

/// As "64x32x32 to 128x16x16, 3x3 / 2": channels, rows and columns, then the convolution's kernel and its stride.
fn layer(product: &Product) -> String {
    let [[_, c, h, w], [_, o, p, q]] = product.shapes;
    let [rows, columns, stride] = product.taps;
    let stride = if stride == 1 { String::new() } else { format!(" / {stride}") };
    format!("{c}x{h}x{w} to {o}x{p}x{q}, {rows}x{columns}{stride}")
}

/// How often the whole GPU is filled with blocks.
fn waves(product: &Product, usage: &Usage) -> f64 {
    f64::from(product.blocks) / f64::from(MULTIPROCESSORS * resident_blocks(usage, product.threads).max(1))
}

fn bound(product: &Product, rates: &Rates) -> &'static str {
    if product.bound_by_memory(rates) { "memory" } else { "arithmetic" }
}

fn json(product: &Product, usage: &Usage, rates: &Rates) -> Value {
    let [input, output] = product.shapes;
    json!({
        "kernel": product.kernel,
        "input": input,
        "output": output,
        "kernel_rows_columns_stride": product.taps,
        "launches": product.launches,
        "blocks": product.blocks,
        "threads": product.threads,
        "waves": waves(product, usage),
        "registers": usage.registers,
        "shared_bytes": usage.shared,
        "occupancy": occupancy(usage, product.threads),
        "flop": product.operations,
        "bytes": product.bytes,
        "roofline_ms": 1e3 * product.seconds(rates),
        "bound_by": bound(product, rates),
        "estimate": true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_products_of_a_step_do_the_operations_that_the_networks_are_known_for() {
        // Multiply-adds of a forward pass on one image, published for ResNet-50 on CIFAR and counted from WRN-22-2's layers.
        for (preset, forward) in [("cifar10-resnet50", 1.298e9), ("cifar10-wrn22-2", 0.158e9)] {
            let config = Config::resolve(Some(preset), None, &[]).unwrap();
            let products = products(&launches_of_a_step(&config, 4).unwrap());
            let sum = |gradient: &str| -> f64 {
                let of_pass = products.iter().filter(|p| match gradient {
                    "" => !p.kernel.contains("grad"),
                    _ => p.kernel.contains(gradient),
                });
                of_pass.map(|p| f64::from(p.launches) * p.operations).sum::<f64>() / (2.0 * 4.0)
            };
            assert!((sum("") / forward - 1.0).abs() < 5e-3, "{preset}: {}", sum(""));
            assert_eq!(sum("grad_weight"), sum(""), "{preset}");
            // The images themselves have no gradient: all but the first layer's.
            let first = 9.0 * 3.0 * 1024.0 * f64::from(products[0].shapes[1][1]);
            assert_eq!(sum("grad_input"), sum("") - first, "{preset}");
        }
    }
}
