//! Images in, from u8.

use super::Cuda;
use super::kernels::{self, Bytes, Each, Floats, Words};
use crate::Result;
use crate::backend::Map;
use crate::data::Pixels;

impl Cuda {
    pub(super) fn upload_images(&mut self, to: Map, images: &Pixels) -> Result<()> {
        let to = self.tensor(to);
        let normalisation = images.normalisation;
        let crops: Vec<u32> =
            images.crops.iter().flat_map(|c| [c.top as u32, c.left as u32, c.height, c.width, c.flip.into()]).collect();
        let tables = normalisation.tables();
        let inputs: Vec<f32> =
            tables.iter().flatten().chain(&normalisation.mean).chain(&normalisation.std).copied().collect();
        let at = self.scratch(size_of_val(&crops[..]) + size_of_val(&inputs[..]) + images.values.len())?;
        let inputs_at = at.plus(size_of_val(&crops[..]));
        let pixels_at = inputs_at.plus(size_of_val(&inputs[..]));
        let on = self.driver();
        on.write(at, bytemuck::cast_slice(&crops))?;
        on.write(inputs_at, bytemuck::cast_slice(&inputs))?;
        on.write(pixels_at, &images.values)?;
        let (pixels, crops, inputs) = (Bytes(pixels_at), Words(at), Floats(inputs_at));
        kernels::write_images(on, Each(to.vectors()), pixels, crops, inputs, normalisation.scale, to)
    }
}
