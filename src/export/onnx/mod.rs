//! ONNX: the recorded evaluation graph, node by node, in f32.
//!
//! The input `images` is (N, C, H, W), normalised pixels, and the output `logits` (N, classes), N as the user likes. Values in between
//! are images as in the graph, features (N, C, 1, 1), and a linear layer is a 1x1 convolution. Masked weights are zeros. How pixels
//! become the input, the classes' names and the sparsity are in `metadata_props`.

mod message;
#[cfg(test)]
mod tests;

use std::any::Any;

use prost::Message;

use self::message::{Attribute, AttributeKind, Dimension, ElementType, Entry, Extent, OperatorSet, Tensor};
use crate::backend::Conv;
use crate::error::{Error, Result};
use crate::graph::{Mode, Node, ParameterId};
use crate::model::Model;
use crate::op::{Add, AddBias, AveragePool, BatchNormalise, Convolve, Flatten, MaxPool, Relu};
use crate::train::checkpoint::to_json;
use crate::train::trained::About;

/// The version of ONNX's operators in use.
pub const OPSET: i64 = 17;

/// The version of the file format that came with that of the operators.
const IR_VERSION: i64 = 8;

/// The network of `model` with its deterministic weights. A temperature that was fitted divides the logits.
///
/// # Errors
/// An op that has no translation; more than the 2 GiB that the format allows.
pub(super) fn encode(model: &mut Model, about: &About) -> Result<Vec<u8>> {
    let (graph, images, logits) = model.record(Mode::Evaluate, 1)?;
    let mut writer = Writer { model, graph: message::Graph::default(), at: 0, layer: String::new() };
    let mut names: Vec<String> = vec![];
    for (at, node) in graph.nodes.iter().enumerate() {
        (writer.at, writer.layer) = (at, node.name.clone());
        let args: Vec<&str> = node.args.iter().map(|arg| names[arg.0].as_str()).collect();
        let name = writer.translate(node, &args)?;
        names.push(name);
    }
    (writer.at, writer.layer) = (graph.nodes.len(), "output".into());
    let mut last = names[logits.0].clone();
    if let Some(temperature) = about.temperature {
        writer.constant("temperature", &[], ElementType::Float, (temperature as f32).to_le_bytes().to_vec());
        last = writer.push("Div", &[&last, "temperature"], vec![]);
    }
    let last = writer.push("Flatten", &[&last], vec![int("axis", 1)]);

    let mut onnx = writer.graph;
    if let Some(node) = onnx.node.iter_mut().find(|node| node.output[0] == last) {
        node.output[0] = "logits".into();
    }
    onnx.name = model.network().into();
    let shape = graph.shape(images);
    onnx.input.push(value(
        &names[images.0],
        &[shape.c, shape.h, shape.w],
        "pixels as metadata_props say, (N, C, H, W)",
    ));
    onnx.output.push(value("logits", &[model.classes()], "before softmax, (N, classes)"));
    let onnx = message::Model {
        ir_version: IR_VERSION,
        producer_name: "cigl".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(onnx),
        opset_import: vec![OperatorSet { domain: String::new(), version: OPSET }],
        metadata_props: metadata(model, about)?,
    };
    if onnx.encoded_len() > i32::MAX as usize {
        let detail = format!("{} takes {} bytes, an ONNX file at most 2 GiB", model.network(), onnx.encoded_len());
        return Err(Error::Usage(detail));
    }
    Ok(onnx.encode_to_vec())
}

/// What a user of the file must know; lists are JSON.
fn metadata(model: &mut Model, about: &About) -> Result<Vec<Entry>> {
    let how = &about.normalisation;
    let mut entries = vec![
        ("input", "(pixel_scale * pixel - mean[channel]) / std[channel]".into()),
        ("pixel_scale", how.scale.to_string()),
        ("mean", to_json(&how.mean)?),
        ("std", to_json(&how.std)?),
        ("class_names", to_json(&about.class_names)?),
        ("sparsity", (1.0 - model.density()?).to_string()),
    ];
    if let Some(temperature) = about.temperature {
        entries.push(("temperature", temperature.to_string()));
    }
    Ok(entries.into_iter().map(|(key, value)| Entry { key: key.into(), value }).collect())
}

/// The graph as far as it is written.
struct Writer<'a> {
    model: &'a mut Model,
    graph: message::Graph,
    /// The recorded node that is being written, whose number makes the names of its values unique.
    at: usize,
    layer: String,
}

impl Writer<'_> {
    /// Writes what computes a recorded node from `args`; returns the result's name.
    fn translate(&mut self, node: &Node, args: &[&str]) -> Result<String> {
        let Some(op) = &node.op else { return Ok(node.name.clone()) };
        let known: &dyn Any = op.as_ref();
        Ok(if let Some(convolve) = known.downcast_ref::<Convolve>() {
            let weight = self.weight(node.parameters[0])?;
            self.push("Conv", &[args[0], &weight], window(convolve.kernel, convolve.conv))
        } else if known.is::<AddBias>() {
            let bias = self.bias(node.parameters[0])?;
            self.push("Add", &[args[0], &bias], vec![])
        } else if let Some(norm) = known.downcast_ref::<BatchNormalise>().filter(|norm| norm.inference) {
            self.normalise(norm, node, args)?
        } else if known.is::<Relu>() {
            self.push("Relu", args, vec![])
        } else if known.is::<Add>() {
            self.push("Add", args, vec![])
        } else if let Some(pool) = known.downcast_ref::<MaxPool>() {
            self.push("MaxPool", args, window(pool.window, pool.conv))
        } else if known.is::<AveragePool>() {
            self.push("GlobalAveragePool", args, vec![])
        } else if known.is::<Flatten>() {
            // A 0 keeps the first dimension, the number of images.
            let shape = format!("{}/{}/shape", self.at, self.layer);
            let dims = [0, node.shape.c as i64, 1, 1].into_iter().flat_map(i64::to_le_bytes).collect();
            self.constant(&shape, &[4], ElementType::Int64, dims);
            self.push("Reshape", &[args[0], &shape], vec![])
        } else {
            let detail = format!("layer {}: the op {} has no translation to ONNX", node.name, op.name());
            return Err(Error::Usage(detail));
        })
    }

    /// Batch norm by the running statistics, and what may follow in the same pass.
    fn normalise(&mut self, norm: &BatchNormalise, node: &Node, args: &[&str]) -> Result<String> {
        let mut inputs = vec![args[0].to_owned()];
        for &id in &node.parameters {
            inputs.push(self.parameter(id, None)?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let mut y = self.push("BatchNormalization", &inputs, vec![float("epsilon", norm.epsilon)]);
        if norm.residual {
            y = self.push("Add", &[&y, args[1]], vec![]);
        }
        if norm.relu {
            y = self.push("Relu", &[&y], vec![]);
        }
        Ok(y)
    }

    /// Adds an operation; returns its result's name, which is not the operation's: some runtimes keep both in one table.
    fn push(&mut self, op_type: &str, inputs: &[&str], attribute: Vec<Attribute>) -> String {
        let name = format!("{}/{}/{op_type}", self.at, self.layer);
        let result = format!("{name}_output_0");
        self.graph.node.push(message::Node {
            input: inputs.iter().map(|&input| input.into()).collect(),
            output: vec![result.clone()],
            name,
            op_type: op_type.into(),
            attribute,
        });
        result
    }

    fn weight(&mut self, id: ParameterId) -> Result<String> {
        let dims = self.model.parameters()[id].kernel_dims();
        self.parameter(id, Some(&dims))
    }

    /// A bias, in the shape that adds it to each channel of images.
    fn bias(&mut self, id: ParameterId) -> Result<String> {
        let channels = self.model.parameters()[id].len();
        self.parameter(id, Some(&[channels, 1, 1]))
    }

    /// Adds a parameter under its own name, where that is not done yet, with its own shape if no other is given.
    fn parameter(&mut self, id: ParameterId, dims: Option<&[usize]>) -> Result<String> {
        let parameter = self.model.parameters()[id].clone();
        if !self.graph.initializer.iter().any(|tensor| tensor.name == parameter.name) {
            let values = super::values(self.model, id)?;
            let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
            self.constant(&parameter.name, dims.unwrap_or(&parameter.dims), ElementType::Float, bytes);
        }
        Ok(parameter.name)
    }

    fn constant(&mut self, name: &str, dims: &[usize], element: ElementType, raw_data: Vec<u8>) {
        let dims = dims.iter().map(|&dim| dim as i64).collect();
        self.graph.initializer.push(Tensor { dims, data_type: element.into(), name: name.into(), raw_data });
    }
}

/// The attributes of a square window; zeros (or nothing, for a maximum) lie around the image.
fn window(size: usize, Conv { stride, padding }: Conv) -> Vec<Attribute> {
    vec![
        ints("kernel_shape", vec![size as i64; 2]),
        ints("strides", vec![stride as i64; 2]),
        ints("pads", vec![padding as i64; 4]),
    ]
}

fn int(name: &str, i: i64) -> Attribute {
    Attribute { name: name.into(), i: Some(i), kind: AttributeKind::Int.into(), ..Attribute::default() }
}

fn ints(name: &str, ints: Vec<i64>) -> Attribute {
    Attribute { name: name.into(), ints, kind: AttributeKind::Ints.into(), ..Attribute::default() }
}

fn float(name: &str, f: f32) -> Attribute {
    Attribute { name: name.into(), f: Some(f), kind: AttributeKind::Float.into(), ..Attribute::default() }
}

/// An input or output of f32: any number of rows or images of that shape.
fn value(name: &str, dims: &[usize], doc: &str) -> message::Value {
    let fixed = dims.iter().map(|&dim| Extent::Value(dim as i64));
    let dim = std::iter::once(Extent::Parameter("N".into())).chain(fixed);
    let dim = dim.map(|extent| Dimension { extent: Some(extent) }).collect();
    let shape = Some(message::TensorShape { dim });
    let tensor_type = Some(message::TensorType { elem_type: ElementType::Float.into(), shape });
    message::Value { name: name.into(), r#type: Some(message::Type { tensor_type }), doc_string: doc.into() }
}
