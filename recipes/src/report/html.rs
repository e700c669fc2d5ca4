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
