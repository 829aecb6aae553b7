use super::*;
use crate::backend::StepState;
use crate::backend::cpu::Cpu;
use crate::backend::cpu::memory::Line;
use crate::backend::sandbox::Sandbox;
use crate::backend::{Effective, Precision, Span};
use crate::bitmask::BitMask;
use crate::rng::{Domain, Stream};
use crate::shape::Shape;

fn noise(len: usize, seed: u64) -> Vec<Line> {
    let mut draws = Stream::new(seed, Domain::Weights, 0, 0);
    (0..len.div_ceil(LANES)).map(|_| Line(std::array::from_fn(|_| draws.normal() as f32))).collect()
}

/// A map of noise, zeros around it.
fn map(grid: Grid, seed: u64) -> Vec<Line> {
    let mut lines = noise(grid.len(), seed);
    bytemuck::cast_slice_mut(&mut lines).chunks_mut(grid.plane).for_each(|plane| grid.clear_halo(plane));
    lines
}

/// What either kernel makes of a layer: y, dx and dw, after something that was there before.
fn passes(level: Level, sparse: bool, [c, o, k, side, stride]: [usize; 5]) -> [Vec<f32>; 3] {
    let conv = Conv { stride, padding: k / 2 };
    let gx = Grid::new(Shape::images(20, c, side, side + 1), k / 2);
    let size = |size: usize| (size + 2 * conv.padding - k) / stride + 1;
    let gy = Grid::new(Shape::images(20, o, size(side), size(side + 1)), k / 2);
    let len = o * k * k * c;
    let weight = Weight {
        layer: 0,
        value: Span::default(),
        grad: Span { at: 0, len },
        out_channels: o,
        in_channels: c,
        kernel: [k, k],
    };
    let weight = Weight { value: Span { at: 0, len }, ..weight };
    let mut layer = Layer::new(weight);
    let mut draws = Stream::new(3, Domain::InitialMask, 0, 0);
    layer.set_mask(BitMask::from_fn(len, |_| draws.uniform() < 0.3));
    let values: Vec<f32> = bytemuck::cast_slice(&noise(len, 4))[..len].to_vec();
    layer.prefer(sparse);
    layer.apply(Effective::Deterministic, &values, None, Precision::F32, level);
    let (x, dy) = (map(gx, 1), map(gy, 2));
    let [x, dy] = [&x, &dy].map(|lines| bytemuck::cast_slice::<_, f32>(lines));
    let [mut y, mut dx] = [map(gy, 5), map(gx, 6)];
    let mut dw = vec![0.5; len];

    let forward = Stencil::forward(gx, gy, [k, k], conv);
    let stencils = [std::slice::from_ref(&forward).to_vec(), Stencil::input_gradient(gy, gx, [k, k], conv)];
    for (direction, (from, gf), stencils, (to, gt)) in [
        (Direction::Forward, (x, gx), &stencils[0], (&mut y, gy)),
        (Direction::Transposed, (dy, gy), &stencils[1], (&mut dx, gx)),
    ] {
        let (view, to) = (View { weight, stride, direction }, (bytemuck::cast_slice_mut(to), gt));
        let from = Operand::stored(from, gf);
        Correlation::new(level, &mut layer, from, view, stencils, Around::default(), to, true).run_all();
    }
    let view = View { weight, stride, direction: Direction::Forward };
    let index = sparse.then(|| layer.index.index(level, view, gx, std::slice::from_ref(&forward), &layer.mask));
    let grad = WeightGrad::new(level, weight, index, &forward, Operand::stored(x, gx), (dy, gy));
    grad.add_up(&grad.run_beside(0, |_| ()), &mut dw, true);
    let inside = (0..len).filter(|&i| layer.mask.get(i)).map(|i| dw[i]).collect();
    [bytemuck::cast_slice(&y).to_vec(), bytemuck::cast_slice(&dx).to_vec(), inside]
}

#[test]
fn the_sparse_and_the_dense_kernels_give_the_same_bits_on_every_instruction_set_with_fma() {
    for shape in
        [[3, 5, 3, 7, 1], [33, 20, 3, 8, 1], [8, 9, 3, 9, 2], [17, 6, 1, 5, 1], [6, 18, 1, 8, 2], [2, 3, 5, 11, 3]]
    {
        let bits =
            |level, sparse| passes(level, sparse, shape).map(|of| of.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        let mut with_fma = None;
        for level in Level::available() {
            let [sparse, dense] = [true, false].map(|sparse| bits(level, sparse));
            assert!(sparse == dense, "{shape:?}, {level:?}: the kernels differ");
            if level != Level::Portable {
                assert!(*with_fma.get_or_insert(sparse.clone()) == sparse, "{shape:?}: {level:?} differs");
            }
        }
    }
}

/// A batch norm of `x` with numbers of its own.
fn batch_norm(sandbox: &mut Sandbox, x: Map, relu: bool) -> BatchNorm {
    let c = x.shape.c;
    BatchNorm {
        x,
        scale: sandbox.noise(c).unwrap(),
        shift: sandbox.noise(c).unwrap(),
        running_mean: sandbox.span(c).unwrap(),
        running_variance: sandbox.span(c).unwrap(),
        batch: sandbox.span(2 * c).unwrap(),
        epsilon: 1e-5,
        residual: None,
        relu,
    }
}

/// What a convolution between two batch norms leaves, fused with them or step by step: its result, the second norm's result and
/// statistics, dw inside M and dx.
fn between_batch_norms(level: Level, fused: bool, case: (Shape, usize, usize, f64, Extent)) -> Vec<Vec<u32>> {
    let (shape, outputs, kernel, density, extent) = case;
    let conv = Conv { stride: 1, padding: kernel / 2 };
    let mut sandbox = Sandbox::new(Box::new(Cpu::with_level(level)));
    // What padding images hold is nobody's business.
    let full = |shape: Shape| Shape { n: shape.n.next_multiple_of(LANES), ..shape };
    let of_batch = |map: Map| Map { shape: Shape { n: shape.n, ..map.shape }, ..map };
    let y_shape = Shape { c: outputs, ..shape };
    let [x, a, dx] = [(); 3].map(|()| of_batch(sandbox.map(full(shape)).unwrap()));
    let [residual, y, z] = [(); 3].map(|()| of_batch(sandbox.map(full(y_shape)).unwrap()));
    let dy = sandbox.map(y_shape).unwrap();
    let weight = sandbox.weight(0, [outputs, shape.c, kernel, kernel]).unwrap();
    let (before, behind) = (batch_norm(&mut sandbox, x, true), batch_norm(&mut sandbox, y, false));
    sandbox.on.register(&[weight]).unwrap();
    sandbox.mask(weight, density).unwrap();
    let on = sandbox.on.as_mut();
    on.effective_weights(Effective::Deterministic, &[]).unwrap();
    on.begin_step(StepState { seed: 0, step: 0, statistics_momentum: 0.1, extent }).unwrap();
    let dx = Sink { to: dx, add: true };
    if fused {
        on.batch_statistics(&before).unwrap();
        let x = backend::Operand::Normalised(before);
        let product = Product { x, weight, conv, residual: Some(residual), statistics: Some(behind) };
        on.fused_conv2d(&product, y).unwrap();
        on.batch_norm_by_batch(&behind, z).unwrap();
        on.fused_conv2d_grad(&product, dy, false, Some(dx)).unwrap();
    } else {
        on.batch_norm(&before, a).unwrap();
        on.conv2d_add(a, weight, conv, residual, y).unwrap();
        on.batch_norm(&behind, z).unwrap();
        on.conv2d_grad_weight(a, dy, weight, conv, false).unwrap();
        on.conv2d_grad_input(dy, weight, conv, dx).unwrap();
    }
    let mask = on.read_mask(0).unwrap();
    let grad = on.read(weight.grad).unwrap();
    let mut all: Vec<Vec<f32>> = [y, z, dx.to].map(|map| on.read_map(map).unwrap()).into();
    for bn in [before, behind] {
        all.extend([bn.batch, bn.running_mean, bn.running_variance].map(|span| on.read(span).unwrap()));
    }
    all.push(mask.ones_at().map(|i| grad[i]).collect());
    all.iter().map(|values| values.iter().map(|x| x.to_bits()).collect()).collect()
}

#[test]
fn convolutions_fused_with_batch_norms_give_the_bits_of_the_same_steps_apart() {
    for (images, channels, side, outputs, kernel) in
        [(20, 5, 9, 7, 3), (16, 3, 34, 6, 3), (5, 9, 32, 8, 1), (130, 2, 8, 3, 3), (3, 6, 40, 5, 1)]
    {
        let shape = Shape::images(images, channels, side, side + 1);
        for (density, extent) in [(0.3, Extent::Active), (0.3, Extent::Dense), (1.0, Extent::Active)] {
            for level in Level::available() {
                let case = (shape, outputs, kernel, density, extent);
                let [fused, apart] = [true, false].map(|fused| between_batch_norms(level, fused, case));
                for (i, (fused, apart)) in fused.iter().zip(&apart).enumerate() {
                    assert!(fused == apart, "{case:?}, {level:?}: result {i} differs");
                    assert!(fused.iter().any(|&bits| bits != fused[0]), "{case:?}: result {i} says nothing");
                }
            }
        }
    }
}
