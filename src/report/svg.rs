//! SVG files as parts of a page.

use resvg::usvg::roxmltree::Document;

use crate::{Error, Result};

/// Elements of a drawing that neither run nor fetch anything.
const DRAWING: [&str; 13] =
    ["svg", "g", "rect", "line", "polyline", "polygon", "circle", "ellipse", "path", "text", "tspan", "title", "desc"];

/// Checks that a document can stand inside a page: well-formed SVG of shapes and text alone. Scripts and links could run or fetch
/// something, styles and names would reach beyond the picture.
///
/// # Errors
/// [`Error::Usage`] with the first thing that is not so.
pub fn check(svg: &str) -> Result<()> {
    let document = Document::parse(svg).map_err(|cause| Error::Usage(format!("not an SVG picture: {cause}")))?;
    let root = document.root_element().tag_name();
    if (root.name(), root.namespace()) != ("svg", Some("http://www.w3.org/2000/svg")) {
        return Err(Error::Usage(format!("not an SVG picture: its root is <{}>", root.name())));
    }
    let refused = |what: &str, name: &str| Error::Usage(format!("{what} {name:?}, expected shapes and text alone"));
    for node in document.descendants().filter(|node| node.is_element()) {
        let name = node.tag_name().name();
        if !DRAWING.contains(&name) {
            return Err(refused("element", name));
        }
        for attribute in node.attributes() {
            let outward = |value: &str| value.contains("url(") || value.contains("://");
            if ["id", "class", "style", "href"].contains(&attribute.name())
                || attribute.name().starts_with("on")
                || outward(attribute.value())
            {
                return Err(refused("attribute", attribute.name()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::plot;

    #[test]
    fn our_own_pictures_pass() {
        check(&plot::density("layers on a page", &[("id=\"x\"".into(), 0.5)], 0.5)).unwrap();
        check("<?xml version=\"1.0\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\"><g/></svg>").unwrap();
    }

    #[test]
    fn what_could_run_fetch_or_reach_out_is_refused() {
        for (inside, part) in [
            ("<script>alert(1)</script>", "script"),
            ("<rect onclick=\"alert(1)\"/>", "onclick"),
            ("<image href=\"a.png\"/>", "image"),
            ("<g><style>p { color: red }</style></g>", "style"),
            ("<rect fill=\"url(http://a.b/c)\"/>", "fill"),
            ("<rect id=\"section-1\"/>", "id"),
            ("<foreignObject/>", "foreignObject"),
            ("<rect>", "not an SVG picture"),
        ] {
            let error = check(&format!("<svg xmlns=\"http://www.w3.org/2000/svg\">{inside}</svg>")).unwrap_err();
            assert!(error.to_string().contains(part), "{inside}: {error}");
        }
        for text in ["", "accuracy 83 %", "<html/>", "<svg/>"] {
            assert!(check(text).unwrap_err().to_string().starts_with("not an SVG picture"), "{text}");
        }
    }
}
