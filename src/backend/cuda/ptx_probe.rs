//! The wrappers of kernels/ptx.cuh against the PTX manual, on every driver: so the CPU's emulation and the GPU are held to the
//! same. Layouts are those of "Matrix Fragments for mma.m16n8k16" and "ldmatrix" in the PTX ISA, written out here.

use bytemuck::Pod;
use half::bf16;

use super::driver::available::drivers;
use super::driver::{Address, Driver};
use super::kernels::{self, Each, Floats, Words};
#[cfg(simt)]
use crate::backend::parity::mutations;
use crate::rng::{Domain, Stream};

/// Runs a case on every driver.
fn on_every_driver(case: impl Fn(&mut dyn Driver, &str)) {
    let test = std::thread::current().name().unwrap_or_default().to_string();
    for (name, mut driver) in drivers() {
        case(driver.as_mut(), &name);
        println!("{test}: confirmed on {name}");
        #[cfg(simt)]
        mutations::record(&test);
    }
}

fn upload<T: Pod>(on: &mut dyn Driver, values: &[T]) -> Address {
    let at = on.allocate(size_of_val(values)).unwrap();
    on.write(at, bytemuck::cast_slice(values)).unwrap();
    at
}

fn download<T: Pod>(on: &mut dyn Driver, at: Address, count: usize) -> Vec<T> {
    let mut values = vec![T::zeroed(); count];
    on.read(at, bytemuck::cast_slice_mut(&mut values)).unwrap();
    values
}

/// Words that differ from each other in every half.
fn words(count: u32) -> Vec<u32> {
    (0..count).map(|i| (2 * i) | ((2 * i + 1) << 16)).collect()
}

#[test]
fn f32_becomes_the_nearest_bf16_and_ties_go_to_even() {
    // Around every 17th bf16 of either sign: itself, its neighbours, halfway to the next and around that.
    let below = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
    let mut x: Vec<f32> =
        (0..=0xffff_u32).step_by(17).flat_map(|upper| below.map(|lower| f32::from_bits(upper << 16 | lower))).collect();
    let subnormal = f32::from_bits(1);
    let largest = bf16::MAX.to_f32();
    x.extend([0.0, -0.0, subnormal, -subnormal, f32::from_bits(0x7f_ffff), f32::from_bits(0x8080_8000)]);
    x.extend([f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, largest, largest.next_up(), -largest]);
    x.extend([f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xff80_0001)]);
    on_every_driver(|on, name| {
        let (from, to) = (upload(on, &x), on.allocate(4 * x.len()).unwrap());
        kernels::probe_f32_to_bf16(on, Each(x.len() as u32), Floats(from), Words(to), x.len() as u32).unwrap();
        for (x, y) in x.iter().zip(download::<u32>(on, to, x.len())) {
            // PTX: "cvt" of a NaN gives the canonical NaN.
            let expected = if x.is_nan() { 0x7fff } else { u32::from(bf16::from_f32(*x).to_bits()) };
            assert_eq!(y, expected, "{name}: {x:e} ({:#x})", x.to_bits());
        }
    });
}

/// What each lane gets from `ldmatrix.x4`: its matrix `i` has the rows that lanes 8 i to 8 i + 7 address, and lane l gets of it
/// row l / 4, columns 2 (l % 4) and the next; of the transposed matrix if so asked.
fn ldmatrix(rows: &[u16], order: &[u32], transposed: bool) -> Vec<u32> {
    let value = |matrix: usize, row: usize, column: usize| {
        let (row, column) = if transposed { (column, row) } else { (row, column) };
        u32::from(rows[8 * order[8 * matrix + row] as usize + column])
    };
    let of = |lane: usize, matrix: usize| {
        let (row, column) = (lane / 4, 2 * (lane % 4));
        value(matrix, row, column) | value(matrix, row, column + 1) << 16
    };
    (0..32).flat_map(|lane| (0..4).map(move |matrix| (lane, matrix))).map(|(lane, matrix)| of(lane, matrix)).collect()
}

fn loads_matrices(transposed: bool) {
    let rows = words(32 * 4);
    // Rows in another order than the lanes that address them, and one that two lanes share.
    let order: Vec<u32> = (0..32).map(|lane| if lane == 9 { 0 } else { 13 * lane % 32 }).collect();
    on_every_driver(|on, name| {
        let (from, by, to) = (upload(on, &rows), upload(on, &order), on.allocate(4 * 128).unwrap());
        kernels::probe_ldmatrix_x4(on, 1, Words(from), Words(by), transposed.into(), Words(to)).unwrap();
        let expected = ldmatrix(bytemuck::cast_slice(&rows), &order, transposed);
        assert_eq!(download::<u32>(on, to, 128), expected, "{name}");
    });
}

#[test]
fn ldmatrix_gives_each_lane_two_columns_of_a_row_of_four_matrices() {
    loads_matrices(false);
}

#[test]
fn ldmatrix_trans_gives_each_lane_two_rows_of_a_column_of_four_matrices() {
    loads_matrices(true);
}

/// The row and column that each lane's value `i` of a fragment has. Groups are 4 lanes.
fn fragment(values: usize, place: impl Fn(usize, usize, usize) -> (usize, usize)) -> Vec<(usize, usize)> {
    (0..32).flat_map(|lane| (0..values).map(move |i| (lane, i))).map(|(lane, i)| place(lane / 4, lane % 4, i)).collect()
}

/// A (16 x 16): a0, a1, a4, a5 in row `group`, the others 8 below; a4 and up 8 columns to the right.
fn places_of_a() -> Vec<(usize, usize)> {
    fragment(8, |group, thread, i| {
        let row = if matches!(i, 0 | 1 | 4 | 5) { group } else { group + 8 };
        let column = if i < 4 { 2 * thread + i % 2 } else { 2 * thread + i % 2 + 8 };
        (row, column)
    })
}

/// B (16 x 8): column `group`; b2 and b3 are 8 rows below.
fn places_of_b() -> Vec<(usize, usize)> {
    fragment(4, |group, thread, i| (if i < 2 { 2 * thread + i % 2 } else { 2 * thread + i % 2 + 8 }, group))
}

/// C (16 x 8): c0 and c1 in row `group`, c2 and c3 8 below.
fn places_of_c() -> Vec<(usize, usize)> {
    fragment(4, |group, thread, i| (if i < 2 { group } else { group + 8 }, 2 * thread + i % 2))
}

/// Multiplies matrices of values that bf16 holds, and checks each element to lie within `bound(sum of magnitudes)` of the f64
/// product.
fn multiplies(mut draw: impl FnMut() -> f32, bound: impl Fn(f64) -> f64) {
    let a: [[f32; 16]; 16] = std::array::from_fn(|_| std::array::from_fn(|_| draw()));
    let b: [[f32; 8]; 16] = std::array::from_fn(|_| std::array::from_fn(|_| draw()));
    let c: [[f32; 8]; 16] = std::array::from_fn(|_| std::array::from_fn(|_| draw()));
    let packed = |x: f32| {
        assert_eq!(bf16::from_f32(x).to_f32(), x, "bf16 holds the operands");
        bf16::from_f32(x).to_bits()
    };
    let left: Vec<u16> = places_of_a().into_iter().map(|(m, k)| packed(a[m][k])).collect();
    let right: Vec<u16> = places_of_b().into_iter().map(|(k, n)| packed(b[k][n])).collect();
    let sum: Vec<f32> = places_of_c().into_iter().map(|(m, n)| c[m][n]).collect();
    on_every_driver(|on, name| {
        let [left, right, to] = [upload(on, &left), upload(on, &right), upload(on, &sum)];
        kernels::probe_mma_bf16_16816(on, 1, Words(left), Words(right), Floats(to)).unwrap();
        for ((m, n), got) in places_of_c().into_iter().zip(download::<f32>(on, to, 128)) {
            let terms = (0..16).map(|k| f64::from(a[m][k]) * f64::from(b[k][n])).chain([f64::from(c[m][n])]);
            let (exact, magnitude) = terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
            let error = (f64::from(got) - exact).abs();
            assert!(
                error <= bound(magnitude),
                "{name}: ({m}, {n}) is {got}, expected {exact} within {:e}",
                bound(magnitude)
            );
        }
    });
}

#[test]
fn mma_multiplies_small_integers_exactly() {
    let mut stream = Stream::new(1, Domain::Bootstrap, 0, 0);
    multiplies(|| (17.0 * stream.uniform()).floor() as f32 - 8.0, |_| 0.0);
}

#[test]
fn mma_multiplies_any_bf16_within_f32_rounding() {
    let mut stream = Stream::new(2, Domain::Bootstrap, 0, 0);
    let draw = || bf16::from_f64((2.0 * stream.uniform() - 1.0) * 2f64.powi((stream.uniform() * 16.0) as i32)).to_f32();
    // Products of bf16 are exact in f32. 17 terms are added in an order that PTX leaves open, and tensor cores cut off.
    multiplies(draw, |magnitude| 17.0 * f64::from(f32::EPSILON) * magnitude);
}

#[test]
fn cp_async_copies_16_bytes_or_writes_zeros_and_reads_nothing() {
    let rows = words(32 * 4);
    let valid = 0xa5f0_137e_u32;
    on_every_driver(|on, name| {
        // The allocation ends where the rows end, and on the CPU what is behind it cannot be read.
        let (from, to) = (upload(on, &rows), upload(on, &[u32::MAX; 128]));
        kernels::probe_cp_async_16(on, 1, Words(from), valid, Words(to)).unwrap();
        let expected: Vec<u32> =
            rows.iter().enumerate().map(|(i, &word)| if valid >> (i / 4) & 1 == 1 { word } else { 0 }).collect();
        assert_eq!(download::<u32>(on, to, 128), expected, "{name}");
    });
}

#[test]
fn a_wait_for_all_but_the_last_groups_makes_the_earlier_ones_readable() {
    let rows = words(5 * 32 * 4);
    on_every_driver(|on, name| {
        let (from, to) = (upload(on, &rows), on.allocate(4 * rows.len()).unwrap());
        kernels::probe_cp_async_wait(on, 1, Words(from), Words(to)).unwrap();
        assert_eq!(download::<u32>(on, to, rows.len()), rows, "{name}");
    });
}
