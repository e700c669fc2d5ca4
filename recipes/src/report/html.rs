//! A page as HTML: everything inline, nothing loaded.

use std::fmt::Write as _;

use super::confusion;
use super::error::ReportError;
use super::page::{Body, Gallery, GalleryItem, Page, Section, Table};
use super::plot;

/// The only style sheet, light and dark.
const STYLE: &str = include_str!("style.css");
/// Sections from which on the page has a list of contents.
const CONTENTS_FROM: usize = 3;

/// Renders a page as one HTML file that loads nothing: it can be mailed, archived and read offline.
///
/// Equal pages give equal bytes. Every text is escaped.
///
/// # Errors
/// [`ReportError`] for a number that is not finite, parts whose sizes do not agree, or an image that is not embedded.
pub fn render(page: &Page) -> Result<String, ReportError> {
    let mut out = String::new();
    let title = escape(&page.title);
    // The policy makes the promise binding: a browser refuses to load anything from elsewhere.
    let policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";
    push(&mut out, format_args!("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"));
    push(&mut out, format_args!("<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n"));
    push(&mut out, format_args!("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"));
    push(&mut out, format_args!("<meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n"));
    push(&mut out, format_args!("<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n"));
    paragraphs(&mut out, &page.lead, " class=\"lead\"");
    if !page.facts.is_empty() {
        out.push_str("<dl class=\"facts\">\n");
        for (name, value) in &page.facts {
            push(&mut out, format_args!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value)));
        }
        out.push_str("</dl>\n");
    }
    if page.sections.len() >= CONTENTS_FROM {
        out.push_str("<nav aria-label=\"Contents\"><ol>\n");
        for (index, section) in page.sections.iter().enumerate() {
            push(&mut out, format_args!("<li><a href=\"#s{index}\">{}</a></li>\n", escape(&section.title)));
        }
        out.push_str("</ol></nav>\n");
    }
    out.push_str("</header>\n<main>\n");
    for (index, section) in page.sections.iter().enumerate() {
        section.check()?;
        self::section(&mut out, index, section)?;
    }
    out.push_str("</main>\n<footer>One file, complete in itself: it loads nothing and needs no network.</footer>\n");
    out.push_str("</body>\n</html>\n");
    Ok(out)
}

fn section(out: &mut String, index: usize, section: &Section) -> Result<(), ReportError> {
    let title = &section.title;
    push(out, format_args!("<section id=\"s{index}\" aria-labelledby=\"s{index}-title\">\n"));
    push(out, format_args!("<h2 id=\"s{index}-title\">{}</h2>\n", escape(title)));
    paragraphs(out, &section.text, "");
    match &section.body {
        Body::Curves(curves) => plot::curves(out, index, title, curves)
            .map_err(|source| ReportError::Drawing { section: title.clone(), source })?,
        Body::Confusion(confusion) => confusion::matrix(out, title, confusion),
        Body::Heat(heat) => super::heat::heat(out, title, heat),
        Body::Table(table) => self::table(out, title, table),
        Body::Gallery(gallery) => self::gallery(out, gallery),
    }
    out.push_str("</section>\n");
    Ok(())
}

/// A table; on a narrow screen it scrolls by itself, so that the page never does.
pub(super) fn table(out: &mut String, caption: &str, table: &Table) {
    let numeric: Vec<bool> =
        (0..table.header.len()).map(|column| table.rows.iter().all(|row| is_number(&row[column]))).collect();
    let class = |column: usize| if column > 0 && numeric[column] { " class=\"number\"" } else { "" };
    let caption = escape(caption);
    push(out, format_args!("<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{caption}\">\n"));
    push(out, format_args!("<table>\n<caption class=\"hidden\">{caption}</caption>\n<thead><tr>"));
    for (column, name) in table.header.iter().enumerate() {
        push(out, format_args!("<th scope=\"col\"{}>{}</th>", class(column), escape(name)));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        out.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            let cell = escape(cell);
            match column {
                0 => push(out, format_args!("<th scope=\"row\">{cell}</th>")),
                _ => push(out, format_args!("<td{}>{cell}</td>", class(column))),
            }
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n</div>\n");
}

fn gallery(out: &mut String, gallery: &Gallery) {
    out.push_str("<ul class=\"gallery\">\n");
    for GalleryItem { image_data_uri, caption, good } in &gallery.items {
        let (class, verdict) = if *good { ("right", "\u{2713} right") } else { ("wrong", "\u{2717} wrong") };
        let (image, caption) = (escape(image_data_uri), escape(caption));
        push(out, format_args!("<li class=\"{class}\"><figure><img src=\"{image}\" alt=\"{caption}\">"));
        push(out, format_args!("<figcaption><b>{verdict}</b> {caption}</figcaption></figure></li>\n"));
    }
    out.push_str("</ul>\n");
}

/// Paragraphs of a text in which empty lines stand between them.
fn paragraphs(out: &mut String, text: &str, attributes: &str) {
    for paragraph in text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty()) {
        push(out, format_args!("<p{attributes}>{}</p>\n", escape(paragraph)));
    }
}

/// Whether a cell reads as a number, perhaps with a unit or a deviation. An empty cell or a dash is no objection.
fn is_number(cell: &str) -> bool {
    let cell = cell.trim().trim_start_matches(['+', '-', '\u{2212}', '\u{2013}', '<', '~']);
    cell.chars().next().is_none_or(|first| first.is_ascii_digit())
}

/// Appends formatted text.
pub(super) fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string cannot fail");
}

/// Text that means itself, in an element and in a quoted attribute. Control characters, which HTML does not allow, are
/// made visible.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(character),
            control if control.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::report::{
        Body, Confusion, Curves, Gallery, GalleryItem, Page, Point, ReportError, Section, Series, Table,
    };

    fn curves(points: &[(f64, f64, f64)], log2_x: bool) -> Body {
        let points = points.iter().map(|&(x, mean, std)| Point { x, mean, std }).collect();
        let series = vec![Series { name: "lora <&>".into(), points }];
        let baselines = vec![("zero-shot".into(), 41.25)];
        Body::Curves(Curves { x_label: "shots".into(), y_label: "accuracy".into(), log2_x, series, baselines })
    }

    fn page(bodies: Vec<Body>) -> Page {
        let section = |body| Section { title: "a < b".into(), text: "one\n\ntwo".into(), body };
        Page {
            title: "<script>alert('1')</script>".into(),
            lead: "\"quoted\" & \u{7} rung".into(),
            facts: vec![("seed <1>".into(), "3".into())],
            sections: bodies.into_iter().map(section).collect(),
        }
    }

    fn table(rows: &[[&str; 2]]) -> Body {
        let rows = rows.iter().map(|row| row.map(String::from).to_vec()).collect();
        Body::Table(Table { header: ["method", "ECE"].map(String::from).to_vec(), rows })
    }

    fn confusion(counts: Vec<Vec<usize>>) -> Body {
        let classes = (0..counts.len()).map(|class| format!("<{class}>")).collect();
        Body::Confusion(Confusion { classes, counts })
    }

    fn gallery(uri: &str) -> Body {
        let item = GalleryItem { image_data_uri: uri.into(), caption: "<hat>".into(), good: false };
        Body::Gallery(Gallery { items: vec![item] })
    }

    fn full() -> Page {
        page(vec![
            curves(&[(1.0, 46.5, 2.25), (4.0, 63.75, 0.0), (16.0, 78.0, 0.5)], true),
            confusion(vec![vec![517, 29], vec![0, 331]]),
            table(&[["coop", "0.0583"], ["a & b", "<1 %"]]),
            gallery("data:image/png;base64,AAAA"),
        ])
    }

    #[test]
    fn nothing_a_caller_writes_becomes_markup_and_nothing_is_loaded() {
        let html = render(&full()).unwrap();
        for text in ["&lt;script&gt;alert(&#39;1&#39;)", "lora &lt;&amp;&gt;", "a &lt; b", "&lt;hat&gt;", "&lt;1 %"] {
            assert!(html.contains(text), "{text}");
        }
        assert!(html.contains("&quot;quoted&quot; &amp; \u{fffd} rung"));
        for markup in ["<script", "<hat>", "<0>", "lora <", "http:", "https:", "url(", "@import", "\u{7}"] {
            assert!(!html.contains(markup), "{markup}");
        }
    }

    #[test]
    fn every_number_appears() {
        let html = render(&full()).unwrap();
        let numbers = ["46.5 \u{b1} 2.2", ">63.8<", "78.0 \u{b1} 0.5", "<b>41.2</b>", ">517<", ">29<", ">0<", ">331<"];
        for number in numbers.into_iter().chain(["0.0583", "<b>848</b> of <b>877</b>", "94.7\u{a0}%", "100.0\u{a0}%"]) {
            assert!(html.contains(number), "{number}");
        }
        for tick in ["\n1\n</text>", "\n4\n</text>", "\n16\n</text>"] {
            assert!(html.contains(tick), "{tick:?}");
        }
    }

    #[test]
    fn equal_pages_give_equal_bytes() {
        assert_eq!(render(&full()).unwrap(), render(&full().clone()).unwrap());
    }

    #[test]
    fn a_matrix_nobody_could_read_becomes_a_list_of_confusions() {
        let mut counts = vec![vec![0; 60]; 60];
        counts[7][8] = 13;
        counts[9][9] = 5;
        let html = render(&page(vec![confusion(counts)])).unwrap();
        assert!(html.contains(
            "<th scope=\"row\">&lt;7&gt;</th><td class=\"number\">&lt;8&gt;</td><td class=\"number\">13</td>"
        ));
        assert!(!html.contains("class=\"matrix\""));
    }

    #[test]
    fn extreme_curves_are_drawn() {
        for points in [&[(3.0, 0.0, 0.0)][..], &[(1.0, -1e-7, 0.0), (1e9, 2e-7, 1e-8)], &[(5.0, 1e12, 0.0); 3]] {
            for log2_x in [false, true] {
                assert!(render(&page(vec![curves(points, log2_x)])).unwrap().contains("<polygon"));
            }
        }
    }

    #[test]
    fn what_cannot_be_shown_is_refused_by_name() {
        let refused = |body| render(&page(vec![body])).unwrap_err();
        assert!(matches!(refused(curves(&[], false)), ReportError::NoPoint { .. }));
        assert!(matches!(refused(curves(&[(1.0, f64::NAN, 0.0)], false)), ReportError::Number { .. }));
        assert!(matches!(refused(curves(&[(1.0, 2.0, -1.0)], false)), ReportError::Number { .. }));
        assert!(matches!(refused(curves(&[(0.0, 2.0, 1.0)], true)), ReportError::Number { .. }));
        assert!(matches!(refused(confusion(vec![vec![1], vec![2]])), ReportError::Size { .. }));
        let narrow = Table { header: vec!["a".into()], rows: vec![vec![]] };
        assert!(matches!(refused(Body::Table(narrow)), ReportError::Size { .. }));
        let error = refused(gallery("https://example.org/hat.png"));
        assert!(error.to_string().contains("found: `https://example.org/hat.png`"), "{error}");
    }
}
