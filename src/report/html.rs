//! One HTML document that holds everything it shows: no script, no font, no picture from anywhere else. It can be mailed, opened
//! offline and printed.

use super::table::Table;

/// A document: a title, paragraphs that say what it is, and sections, with a table of contents from the second section on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The headline.
    pub title: String,
    /// Paragraphs before the first section.
    pub lead: Vec<String>,
    /// The sections.
    pub sections: Vec<Section>,
}

/// A section with its heading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// The heading.
    pub heading: String,
    /// What is in it, in order.
    pub parts: Vec<Part>,
}

/// A piece of a section. All text is plain text: whatever it contains is shown as it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// A paragraph.
    Text(String),
    /// A paragraph that should not be overlooked.
    Note(String),
    /// A table.
    Table {
        /// What its numbers are.
        caption: String,
        /// The table itself: the first column is left-aligned, the others right.
        table: Table,
    },
    /// A picture.
    Picture {
        /// What it shows; read out in the picture's place too.
        caption: String,
        /// A whole SVG document without scripts, links and ids, as [`super::plot`] draws it. It is taken as it is.
        svg: String,
    },
    /// Parts that are folded away on the screen until they are asked for, and shown in print.
    Details {
        /// The line that is always seen.
        summary: String,
        /// What is folded away.
        parts: Vec<Part>,
    },
    /// Text with its line breaks, as in a file.
    Code(String),
}

/// Pictures and tables are kept whole in print; tables of more rows may be divided between printed pages.
const SHORT: usize = 25;

impl Page {
    /// The document.
    pub fn html(&self) -> String {
        let title = escape(&self.title);
        let lead: String = self.lead.iter().map(|text| paragraph(text)).collect();
        let sections: String =
            (1..).zip(&self.sections).map(|(number, section)| section.html(&format!("section-{number}"))).collect();
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n{lead}</header>\n\
             {contents}<main>\n{sections}</main>\n</body>\n</html>\n",
            contents = self.contents(),
        )
    }

    fn contents(&self) -> String {
        if self.sections.len() < 2 {
            return String::new();
        }
        let entry = |(number, section): (usize, &Section)| {
            format!("<li><a href=\"#section-{number}\">{}</a></li>\n", escape(&section.heading))
        };
        let entries: String = (1..).zip(&self.sections).map(entry).collect();
        format!("<nav aria-label=\"Contents\">\n<ul>\n{entries}</ul>\n</nav>\n")
    }
}

const STYLE: &str = include_str!("html.css");

impl Section {
    fn html(&self, id: &str) -> String {
        let parts: String = self.parts.iter().map(Part::html).collect();
        format!("<section id=\"{id}\">\n<h2>{}</h2>\n{parts}</section>\n", escape(&self.heading))
    }
}

impl Part {
    fn html(&self) -> String {
        match self {
            Part::Text(text) => paragraph(text),
            Part::Note(text) => format!("<p class=\"note\">{}</p>\n", escape(text)),
            Part::Table { caption, table } => self::table(caption, table),
            Part::Picture { caption, svg } => {
                let caption = escape(caption);
                // An XML declaration has no place inside HTML.
                let svg = &svg[svg.find("<svg").unwrap_or(0)..];
                format!(
                    "<figure class=\"whole\">\n<div class=\"picture\" role=\"img\" aria-label=\"{caption}\">\n{svg}\n</div>\n\
                     <figcaption>{caption}</figcaption>\n</figure>\n"
                )
            }
            Part::Details { summary, parts } => {
                let parts: String = parts.iter().map(Part::html).collect();
                format!("<details>\n<summary>{}</summary>\n{parts}</details>\n", escape(summary))
            }
            Part::Code(text) => format!("<pre><code>{}</code></pre>\n", escape(text)),
        }
    }
}

fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escape(text))
}

/// Scrolled sideways where it is wider than the screen, also with the keyboard. Columns of words are left-aligned.
fn table(caption: &str, table: &Table) -> String {
    let whole = if table.rows().len() <= SHORT { " class=\"whole\"" } else { "" };
    let words = |column: usize| !table.rows().iter().any(|row| is_number(&row[column]));
    let class = |column: usize| if column > 0 && words(column) { " class=\"words\"" } else { "" };
    let name = |(column, name): (usize, &String)| format!("<th scope=\"col\"{}>{}</th>", class(column), escape(name));
    let header: String = table.header().iter().enumerate().map(name).collect();
    let row = |cells: &Vec<String>| {
        let cell = |(column, text): (usize, &String)| match column {
            0 => format!("<th scope=\"row\">{}</th>", escape(text)),
            _ => format!("<td{}>{}</td>", class(column), escape(text)),
        };
        format!("<tr>{}</tr>\n", cells.iter().enumerate().map(cell).collect::<String>())
    };
    let rows: String = table.rows().iter().map(row).collect();
    let caption = escape(caption);
    format!(
        "<figure{whole}>\n<figcaption>{caption}</figcaption>\n\
         <div class=\"wide\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\">\n<table>\n\
         <thead>\n<tr>{header}</tr>\n</thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n</figure>\n"
    )
}

/// Whether a cell is a number, maybe with its deviation or interval.
fn is_number(text: &str) -> bool {
    text.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit())
}

/// The text with what HTML would read as markup written as character references: right in elements and in quoted attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            // Of the control characters HTML allows these alone.
            c if c.is_control() && !matches!(c, '\n' | '\t') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::plot;

    fn example() -> Page {
        let mut table = Table::new(["method", "ECE"]);
        table.row(["RigL", "0.0624 ± 0.0026"]).row(["CigL", "0.0173"]);
        let svg = plot::density("layers", &[("conv1.weight".into(), 0.25)], 0.25);
        let details = vec![Part::Code("seed = 0\n".into()), Part::Picture { caption: "densities".into(), svg }];
        Page {
            title: "Two methods".into(),
            lead: vec!["What this is.".into()],
            sections: vec![
                Section {
                    heading: "Numbers".into(),
                    parts: vec![
                        Part::Text("Read them together.".into()),
                        Part::Note("One run failed.".into()),
                        Part::Table { caption: "calibration".into(), table },
                    ],
                },
                Section {
                    heading: "Runs".into(),
                    parts: vec![Part::Details { summary: "digits, seed 0".into(), parts: details }],
                },
            ],
        }
    }

    #[test]
    fn everything_that_was_put_in_is_in_the_document_once() {
        let html = example().html();
        for words in [
            "<h1>Two methods</h1>",
            "<p>What this is.</p>",
            "<h2>Numbers</h2>",
            "<p>Read them together.</p>",
            "<p class=\"note\">One run failed.</p>",
            "<figcaption>calibration</figcaption>",
            "<tr><th scope=\"col\">method</th><th scope=\"col\">ECE</th></tr>",
            "<tr><th scope=\"row\">RigL</th><td>0.0624 ± 0.0026</td></tr>",
            "<tr><th scope=\"row\">CigL</th><td>0.0173</td></tr>",
            "<summary>digits, seed 0</summary>",
            "<pre><code>seed = 0\n</code></pre>",
            "<figcaption>densities</figcaption>",
            "role=\"img\" aria-label=\"densities\"",
            "conv1.weight",
        ] {
            assert_eq!(html.matches(words).count(), 1, "{words}");
        }
    }

    #[test]
    fn columns_of_words_are_marked_and_those_of_numbers_are_not() {
        let mut table = Table::new(["run", "state", "seed"]);
        table.row(["a", "failed", "0"]).row(["b", "", "1 failed"]);
        let html = Part::Table { caption: String::new(), table }.html();
        assert!(html.contains("<th scope=\"col\" class=\"words\">state</th><th scope=\"col\">seed</th>"), "{html}");
        assert!(html.contains("<td class=\"words\">failed</td><td>0</td>"), "{html}");
    }

    #[test]
    fn the_contents_link_to_the_sections() {
        let html = example().html();
        for (number, heading) in [(1, "Numbers"), (2, "Runs")] {
            assert!(html.contains(&format!("<a href=\"#section-{number}\">{heading}</a>")));
            assert!(html.contains(&format!("<section id=\"section-{number}\">\n<h2>{heading}</h2>")));
        }
        let one = Page { sections: example().sections[..1].to_vec(), ..example() };
        assert!(!one.html().contains("<nav"), "one section needs no contents");
    }

    // Markup in any text would break the page, or run in it.
    #[test]
    fn whatever_a_text_contains_is_shown_and_not_obeyed() {
        let evil = "<script>alert(\"1\")</script> & 'x' \u{1b}[0m";
        let mut table = Table::new([evil]);
        table.row([evil]);
        let parts = vec![
            Part::Text(evil.into()),
            Part::Note(evil.into()),
            Part::Code(evil.into()),
            Part::Table { caption: evil.into(), table },
            Part::Picture { caption: evil.into(), svg: "<svg xmlns=\"http://www.w3.org/2000/svg\"/>".into() },
            Part::Details { summary: evil.into(), parts: vec![] },
        ];
        let section = Section { heading: evil.into(), parts };
        let html = Page { title: evil.into(), lead: vec![evil.into()], sections: vec![section; 2] }.html();
        assert!(!html.contains("<script") && !html.contains("(\"1\")") && !html.contains('\u{1b}'));
        let shown = "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#39;x&#39; \u{fffd}[0m";
        // Title twice, lead, two contents and headings, and 10 texts and attributes in each section.
        assert_eq!(html.matches(shown).count(), 2 + 1 + 2 * (2 + 10));
    }

    #[test]
    fn nothing_is_fetched_from_anywhere() {
        let html = example().html();
        let elsewhere = html.replace("http://www.w3.org/2000/svg", "");
        for reference in ["http", "//", "src=", "url(", "@import", "<link", "<script"] {
            assert!(!elsewhere.contains(reference), "{reference}");
        }
    }

    #[test]
    fn the_declaration_of_an_svg_file_is_left_out() {
        let svg = "<?xml version=\"1.0\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_string();
        let html = Part::Picture { caption: String::new(), svg }.html();
        assert!(!html.contains("<?xml") && html.contains("<svg "));
    }
}
