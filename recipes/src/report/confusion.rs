//! A confusion matrix as a table whose cells are tinted: read by eye, by keyboard and by screen readers alike.

use super::html::{escape, push, table};
use super::page::{Confusion, Table};

/// Classes up to which the whole matrix is shown; beyond, nobody can read it, and its size grows with the square.
const MOST_CLASSES: usize = 40;
/// How many confusions are listed where the matrix is too large.
const LISTED: usize = 20;

/// Appends the matrix: true classes down, predicted classes across, each cell tinted by its share of the row.
pub(super) fn matrix(out: &mut String, title: &str, confusion: &Confusion) {
    let total: usize = confusion.counts.iter().flatten().sum();
    let right: usize = confusion.counts.iter().enumerate().map(|(class, row)| row[class]).sum();
    push(out, format_args!("<p class=\"summary\"><b>{right}</b> of <b>{total}</b> on the diagonal"));
    if total > 0 {
        push(out, format_args!(" ({})", percent(right, total)));
    }
    out.push_str("</p>\n");
    if confusion.classes.len() > MOST_CLASSES { list(out, title, confusion) } else { cells(out, title, confusion) }
}

fn cells(out: &mut String, title: &str, confusion: &Confusion) {
    let Confusion { classes, counts } = confusion;
    let title = escape(title);
    push(out, format_args!("<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{title}\">\n"));
    push(out, format_args!("<table class=\"matrix\">\n<caption class=\"hidden\">{title}: rows are true classes, "));
    out.push_str("columns predicted classes, cells numbers of images</caption>\n<thead>\n");
    push(out, format_args!("<tr><td></td><th class=\"axis\" colspan=\"{}\">predicted</th>", classes.len()));
    out.push_str("<td></td></tr>\n<tr><th class=\"axis\" scope=\"col\">true</th>");
    for class in classes {
        push(out, format_args!("<th scope=\"col\" class=\"upright\"><span>{}</span></th>", escape(class)));
    }
    out.push_str("<th scope=\"col\" class=\"upright\"><span>recall</span></th></tr>\n</thead>\n<tbody>\n");
    for (row, (class, counts)) in classes.iter().zip(counts).enumerate() {
        let total: usize = counts.iter().sum();
        push(out, format_args!("<tr><th scope=\"row\">{}</th>", escape(class)));
        for (column, count) in counts.iter().enumerate() {
            cell(out, *count, total, row == column);
        }
        let recall = if total == 0 { "\u{2013}".into() } else { percent(counts[row], total) };
        push(out, format_args!("<td class=\"recall\">{recall}</td></tr>\n"));
    }
    out.push_str("</tbody>\n</table>\n</div>\n<p class=\"scale\">Tint: 0 to 100\u{a0}% of the row ");
    out.push_str("<span class=\"ramp right\"></span> right (outlined) <span class=\"ramp wrong\"></span> taken for ");
    out.push_str("another</p>\n");
}

fn cell(out: &mut String, count: usize, total: usize, diagonal: bool) {
    let share = if total == 0 { 0.0 } else { count as f64 / total as f64 };
    let hue = if diagonal { "right" } else { "wrong" };
    // Where the tint needs the other ink: a dark tint on light paper turns later than a bright one on dark paper.
    let ink = match share {
        _ if count == 0 => " zero",
        0.77.. => " mid deep",
        0.57.. => " mid",
        _ => "",
    };
    push(out, format_args!("<td class=\"{hue}{ink}\" style=\"--share:{share:.3}\">{count}</td>"));
}

/// The most frequent confusions, and the recall of each class.
fn list(out: &mut String, title: &str, confusion: &Confusion) {
    let Confusion { classes, counts } = confusion;
    let mut pairs: Vec<(usize, usize, usize)> = Vec::new();
    for (row, counts) in counts.iter().enumerate() {
        let wrong = counts.iter().enumerate().filter(|(column, count)| *column != row && **count > 0);
        pairs.extend(wrong.map(|(column, count)| (*count, row, column)));
    }
    pairs.sort_by(|left, right| right.0.cmp(&left.0).then((left.1, left.2).cmp(&(right.1, right.2))));
    pairs.truncate(LISTED);
    let share = |count: usize, row: usize| percent(count, counts[row].iter().sum());
    let rows = pairs.into_iter().map(|(count, row, column)| {
        vec![classes[row].clone(), classes[column].clone(), count.to_string(), share(count, row)]
    });
    let header = ["true", "taken for", "images", "share of the class"].map(String::from).to_vec();
    table(out, &format!("{title}: the most frequent confusions"), &Table { header, rows: rows.collect() });
    let rows = classes.iter().zip(counts).enumerate().map(|(row, (class, counts))| {
        let total: usize = counts.iter().sum();
        let recall = if total == 0 { "\u{2013}".into() } else { percent(counts[row], total) };
        vec![class.clone(), total.to_string(), counts[row].to_string(), recall]
    });
    let header = ["class", "images", "right", "recall"].map(String::from).to_vec();
    out.push_str("<details><summary>Every class</summary>\n");
    table(out, &format!("{title}: every class"), &Table { header, rows: rows.collect() });
    out.push_str("</details>\n");
}

fn percent(part: usize, whole: usize) -> String {
    format!("{:.1}\u{a0}%", 100.0 * part as f64 / whole as f64)
}
