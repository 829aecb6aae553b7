//! SVG to PNG, with the font in the program: the same picture on a machine that has none.

use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use crate::{Error, Result};

/// DejaVu Sans and its bold, cut down to Latin and Greek letters and a few signs; see `fonts/LICENSE`.
static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(include_bytes!("fonts/DejaVuSans-Latin.ttf").to_vec());
    fonts.load_font_data(include_bytes!("fonts/DejaVuSans-Bold-Latin.ttf").to_vec());
    fonts.set_sans_serif_family("DejaVu Sans");
    Arc::new(fonts)
});

/// Renders an SVG document at `scale` pixels per CSS pixel (2 is sharp on today's screens) into the bytes of a PNG file.
///
/// # Errors
/// [`Error::Usage`] when the text is no SVG, [`Error::Resources`] when the picture is too large or empty.
pub fn render(svg: &str, scale: f32) -> Result<Vec<u8>> {
    let tree = parse(svg)?;
    let size = tree.size();
    let (width, height) = ((size.width() * scale).ceil() as u32, (size.height() * scale).ceil() as u32);
    let too_large = || Error::Resources(format!("cannot draw a picture of {width} x {height} pixels"));
    let mut pixmap = Pixmap::new(width, height).ok_or_else(too_large)?;
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixmap.as_mut());
    pixmap.encode_png().map_err(|cause| Error::Resources(format!("cannot encode the picture: {cause}")))
}

/// The document with its text laid out.
pub(super) fn parse(svg: &str) -> Result<Tree> {
    let options = Options { fontdb: FONTS.clone(), font_family: "DejaVu Sans".into(), ..Options::default() };
    Tree::from_str(svg, &options).map_err(|cause| Error::Usage(format!("not an SVG picture: {cause}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ink(svg: &str) -> usize {
        let png = render(svg, 1.0).unwrap();
        let image = image::load_from_memory(&png).unwrap().to_luma8();
        image.pixels().filter(|pixel| pixel.0[0] < 128).count()
    }

    #[test]
    fn the_picture_has_the_asked_size() {
        let png = render(r#"<svg xmlns="http://www.w3.org/2000/svg" width="30" height="20"/>"#, 2.0).unwrap();
        let image = image::load_from_memory(&png).unwrap();
        assert_eq!((image.width(), image.height()), (60, 40));
    }

    // A missing font would leave the text out without an error.
    #[test]
    fn text_is_drawn_with_the_embedded_fonts() {
        let page = |weight: &str, words: &str| {
            format!(
                r##"<svg xmlns="http://www.w3.org/2000/svg" width="300" height="40"><rect width="300" height="40" fill="#fff"/><text x="5" y="30" font-family="sans-serif" font-weight="{weight}" font-size="24">{words}</text></svg>"##
            )
        };
        let (normal, bold) = (ink(&page("normal", "Schärfe ± 5 %")), ink(&page("bold", "Schärfe ± 5 %")));
        assert!(normal > 300 && bold > normal + normal / 5, "{normal} and {bold} dark pixels");
        assert_eq!(ink(&page("normal", "")), 0);
    }

    #[test]
    fn what_is_no_svg_is_an_error() {
        assert!(render("accuracy 83 %", 1.0).is_err());
    }
}
