//! Shares by row and column as a tinted table.

use super::html::{escape, push};
use super::page::Heat;

/// Appends the table: every cell tinted by its share.
pub(super) fn heat(out: &mut String, title: &str, heat: &Heat) {
    let title = escape(title);
    push(out, format_args!("<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{title}\">\n"));
    push(
        out,
        format_args!("<table class=\"matrix\">\n<caption class=\"hidden\">{title}, in percent</caption>\n<thead>\n"),
    );
    out.push_str("<tr><td></td>");
    for column in &heat.columns {
        push(out, format_args!("<th scope=\"col\" class=\"upright\"><span>{}</span></th>", escape(column)));
    }
    out.push_str("</tr>\n</thead>\n<tbody>\n");
    for (name, values) in heat.rows.iter().zip(&heat.values) {
        push(out, format_args!("<tr><th scope=\"row\">{}</th>", escape(name)));
        for value in values {
            match value {
                None => out.push_str("<td class=\"right zero\" style=\"--share:0\">\u{2013}</td>"),
                Some(share) => {
                    // Where the tint needs the other ink, as in a confusion matrix.
                    let ink = match share {
                        0.77.. => " mid deep",
                        0.57.. => " mid",
                        _ => "",
                    };
                    let percent = 100.0 * share;
                    push(out, format_args!("<td class=\"right{ink}\" style=\"--share:{share:.3}\">{percent:.1}</td>"));
                }
            }
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n</div>\n");
}
