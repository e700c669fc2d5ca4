//! Curves as inline SVG, with their legend and their values.
//!
//! The plot is drawn in the light palette, as an image of its own; the style sheet maps these colours to the dark one.
//! Letter sizes are the style sheet's too, since a plot shrinks on a phone and its words must not.

use std::error::Error;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::html::{escape, push, table};
use super::page::{Curves, Point, Series, Table};

/// Size of the drawing. The backend knows whole pixels only, so there are four to each pixel on the screen.
const SIZE: (u32, u32) = (2880, 1640);
/// Room for the words below, at their largest.
const BELOW: u32 = 130;
/// Room for one character on the left, at its largest.
const CHARACTER: u32 = 58;
/// Room above and to the right of the field.
const MARGIN: u32 = 56;
/// Half the width of a marker.
const RADIUS: i32 = 22;
/// Points up to which each is marked; of more, a few are, so that the shape still tells whose line it is.
const MARKED: usize = 24;
/// How many of more points are marked.
const MARKED_OF_MANY: usize = 8;
/// Room for the points of all series at one position, and for one of them: side by side, no error bar hides another.
const APART: (i32, i32) = (240, 30);
/// Most different positions that are labelled on a logarithmic axis.
const MOST_TICKS: usize = 10;

const INK: RGBColor = RGBColor(0x4d, 0x58, 0x52);
const GRID: RGBColor = RGBColor(0xe3, 0xe3, 0xda);
const PAPER: RGBColor = RGBColor(0xff, 0xff, 0xff);
/// Colours of lines, told apart by all kinds of colour vision; the markers differ as well.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x1f, 0x5f, 0xb4),
    RGBColor(0xc4, 0x55, 0x0c),
    RGBColor(0x12, 0x7d, 0x5d),
    RGBColor(0x85, 0x3f, 0xb5),
    RGBColor(0xb8, 0x2a, 0x74),
    RGBColor(0x75, 0x65, 0x0a),
];

/// Lengths of stroke and gap; a solid line has no gap.
type Dash = (u32, u32);
/// The dashes of series, by rounds through the colours.
const SERIES_DASHES: [Dash; 3] = [(1, 0), (64, 28), (20, 28)];
/// The dashes of baselines.
const BASELINE_DASHES: [Dash; 3] = [(28, 24), (72, 24), (12, 20)];

type Drawing<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Appends a figure: legend, plot, and the values as a table.
pub(super) fn curves(out: &mut String, index: usize, title: &str, curves: &Curves) -> Drawing<()> {
    let decimals = precision(curves);
    let axes = format!("{} over {}", curves.y_label, curves.x_label);
    out.push_str("<figure>\n<ul class=\"legend\">\n");
    for (number, series) in curves.series.iter().enumerate() {
        let sample = sample(colour(number), dash(number), Some(number));
        push(out, format_args!("<li>{sample}{}</li>\n", escape(&series.name)));
    }
    for (number, (name, value)) in curves.baselines.iter().enumerate() {
        let sample = sample(INK, BASELINE_DASHES[number % BASELINE_DASHES.len()], None);
        push(out, format_args!("<li>{sample}{} <b>{value:.decimals$}</b></li>\n", escape(name)));
    }
    push(out, format_args!("</ul>\n<p class=\"axis\">{}</p>\n", escape(&curves.y_label)));
    push(out, format_args!("<svg class=\"plot\" viewBox=\"0 0 {} {}\" role=\"img\" ", SIZE.0, SIZE.1));
    push(out, format_args!("aria-labelledby=\"s{index}-plot s{index}-axes\">\n"));
    push(out, format_args!("<title id=\"s{index}-plot\">{}</title>\n", escape(title)));
    push(out, format_args!("<desc id=\"s{index}-axes\">{}; the values are in the table below</desc>\n", escape(&axes)));
    let drawing = draw(curves)?;
    // The drawing's own opening tag fixes its size; the one above lets it fit the page.
    out.push_str(drawing.split_once(">\n").map_or("", |(_, inside)| inside));
    push(out, format_args!("<p class=\"axis below\">{}</p>\n", escape(&curves.x_label)));
    out.push_str("<details><summary>Values</summary>\n");
    table(out, &format!("{title}: {axes}"), &values(curves, decimals));
    out.push_str("</details>\n</figure>\n");
    Ok(())
}

/// Every number of the plot, one row for each position.
fn values(curves: &Curves, decimals: usize) -> Table {
    let mut header = vec![curves.x_label.clone()];
    header.extend(curves.series.iter().map(|series| series.name.clone()));
    let cell = |series: &Series, x: f64| {
        let here = series.points.iter().filter(|point| point.x == x);
        let here: Vec<String> = here
            .map(|Point { mean, std, .. }| match *std > 0.0 {
                true => format!("{mean:.decimals$} \u{b1} {std:.decimals$}"),
                false => format!("{mean:.decimals$}"),
            })
            .collect();
        if here.is_empty() { "\u{2013}".into() } else { here.join(", ") }
    };
    let rows = positions(curves).into_iter().map(|x| {
        let cells = curves.series.iter().map(|series| cell(series, x));
        std::iter::once(x.to_string()).chain(cells).collect()
    });
    Table { header, rows: rows.collect() }
}

/// The different positions, in order.
fn positions(curves: &Curves) -> Vec<f64> {
    let mut positions: Vec<f64> = points(curves).map(|point| point.x).collect();
    positions.sort_by(f64::total_cmp);
    positions.dedup();
    positions
}

fn points(curves: &Curves) -> impl Iterator<Item = &Point> {
    curves.series.iter().flat_map(|series| &series.points)
}

/// Decimals with which a value of this plot is written: about four digits of its height.
fn precision(curves: &Curves) -> usize {
    let highest = points(curves).map(|point| point.mean.abs()).fold(0.0, f64::max);
    if highest > 0.0 && highest < 10.0 { (3.0 - highest.log10().floor()).min(12.0) as usize } else { 1 }
}

fn colour(series: usize) -> RGBColor {
    COLOURS[series % COLOURS.len()]
}

fn dash(series: usize) -> Dash {
    SERIES_DASHES[series / COLOURS.len() % SERIES_DASHES.len()]
}

/// The corners of a marker around the origin: circle, triangle, square, diamond, downward triangle, cross.
fn marker(series: usize, radius: i32) -> Vec<(i32, i32)> {
    let at = |share: f64| (share * f64::from(radius)).round() as i32;
    let corners: &[(f64, f64)] = match series % COLOURS.len() {
        0 => {
            let corner = |step: i32| (f64::from(step) * std::f64::consts::TAU / 24.0).sin_cos();
            return (0..24).map(corner).map(|(sin, cos)| (at(cos), at(sin))).collect();
        }
        1 => &[(0.0, -1.25), (1.15, 0.85), (-1.15, 0.85)],
        2 => &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        3 => &[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)],
        4 => &[(0.0, 1.25), (1.15, -0.85), (-1.15, -0.85)],
        _ => &[
            (-0.4, -1.2),
            (0.4, -1.2),
            (0.4, -0.4),
            (1.2, -0.4),
            (1.2, 0.4),
            (0.4, 0.4),
            (0.4, 1.2),
            (-0.4, 1.2),
            (-0.4, 0.4),
            (-1.2, 0.4),
            (-1.2, -0.4),
            (-0.4, -0.4),
        ],
    };
    corners.iter().map(|(x, y)| (at(*x), at(*y))).collect()
}

/// A piece of line for the legend.
fn sample(colour: RGBColor, dash: Dash, series: Option<usize>) -> String {
    let hex = format!("#{:02X}{:02X}{:02X}", colour.0, colour.1, colour.2);
    let mut svg = String::from("<svg viewBox=\"0 0 160 64\" aria-hidden=\"true\">");
    push(&mut svg, format_args!("<path d=\"M0 32H160\" stroke=\"{hex}\" stroke-width=\"10\""));
    if dash.1 > 0 {
        // A marker covers the middle, so that shorter dashes are needed to be seen beside it.
        let length = if series.is_some() { 2 } else { 1 };
        push(&mut svg, format_args!(" stroke-dasharray=\"{} {}\"", dash.0 / length, dash.1 / length));
    }
    svg.push_str("/>");
    if let Some(series) = series {
        let corners = marker(series, RADIUS).into_iter().map(|(x, y)| format!("{},{}", x + 80, y + 32));
        let corners: Vec<String> = corners.collect();
        push(&mut svg, format_args!("<polygon fill=\"{hex}\" points=\"{}\"/>", corners.join(" ")));
    }
    svg.push_str("</svg>");
    svg
}

fn draw(curves: &Curves) -> Drawing<String> {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    let decimals = precision(curves);
    let (horizontal, vertical) = (Axis::horizontal(curves), Axis::vertical(curves));
    let longest = vertical.ticks.iter().map(|tick| vertical.format_ext(tick).chars().count()).max().unwrap_or(0);
    let mut chart = ChartBuilder::on(&root)
        .margin_top(MARGIN)
        .margin_right(MARGIN)
        .set_label_area_size(LabelAreaPosition::Left, CHARACTER * longest as u32 + 50)
        .set_label_area_size(LabelAreaPosition::Bottom, BELOW)
        .build_cartesian_2d(horizontal, vertical)?;
    let words = |horizontal, vertical| {
        TextStyle::from(("sans-serif", 62).into_font()).color(&INK).pos(Pos::new(horizontal, vertical))
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID.stroke_width(4))
        .light_line_style(TRANSPARENT)
        .axis_style(TRANSPARENT)
        .x_label_style(words(HPos::Center, VPos::Top))
        .y_label_style(words(HPos::Right, VPos::Center))
        .draw()?;

    let bounds = chart.x_range();
    for (number, (name, value)) in curves.baselines.iter().enumerate() {
        let line = [bounds.start, bounds.end].map(|x| chart.backend_coord(&(x, *value)));
        stroke(&root, line.to_vec(), BASELINE_DASHES[number % BASELINE_DASHES.len()], INK.stroke_width(7))?;
        let (x, y) = line[1];
        root.draw(&Text::new(format!("{name} {value:.decimals$}"), (x - 8, y - 8), words(HPos::Right, VPos::Bottom)))?;
    }
    let count = curves.series.len() as i32;
    let apart = if points(curves).any(|point| point.std > 0.0) { APART.1.min(APART.0 / count) } else { 0 };
    for (number, series) in curves.series.iter().enumerate() {
        let colour = colour(number);
        let shift = (2 * number as i32 + 1 - count) * apart / 2;
        let place = |x: f64, y: f64| {
            let (x, y) = chart.backend_coord(&(x, y));
            (x + shift, y)
        };
        let mut points = series.points.clone();
        points.sort_by(|left, right| left.x.total_cmp(&right.x));
        for Point { x, mean, std } in points.iter().filter(|point| point.std > 0.0) {
            let ends = [place(*x, mean - std), place(*x, mean + std)];
            let caps = ends.map(|(x, y)| [(x - RADIUS / 2, y), (x + RADIUS / 2, y)]);
            for line in [ends, caps[0], caps[1]] {
                root.draw(&PathElement::new(line, colour.mix(0.6).stroke_width(9)))?;
            }
        }
        let line: Vec<(i32, i32)> = points.iter().map(|point| place(point.x, point.mean)).collect();
        stroke(&root, line.clone(), dash(number), colour.stroke_width(11))?;
        let step = if line.len() > MARKED { line.len().div_ceil(MARKED_OF_MANY) } else { 1 };
        // Staggered, so that the markers of lines close together do not cover each other.
        let first = number * step / curves.series.len();
        for (x, y) in line.into_iter().skip(first).step_by(step) {
            for (radius, colour) in [(RADIUS + 9, PAPER), (RADIUS, colour)] {
                let corners: Vec<_> = marker(number, radius).into_iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
                root.draw(&Polygon::new(corners, colour))?;
            }
        }
    }
    root.present()?;
    drop(chart);
    drop(root);
    Ok(svg)
}

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws a line through places of the canvas.
fn stroke(canvas: &Canvas<'_>, line: Vec<(i32, i32)>, dash: Dash, style: ShapeStyle) -> Drawing<()> {
    match dash {
        (_, 0) => canvas.draw(&PathElement::new(line, style))?,
        (length, gap) => canvas.draw(&DashedPathElement::new(line, length, gap, style))?,
    }
    Ok(())
}

/// An axis whose labels are exactly where it says.
#[derive(Clone)]
struct Axis {
    range: Range<f64>,
    ticks: Vec<f64>,
    log2: bool,
    decimals: Option<usize>,
}

impl Axis {
    fn horizontal(curves: &Curves) -> Self {
        let positions = positions(curves);
        let (first, last) = bounds(positions.iter().copied());
        if !curves.log2_x {
            // Without room at the sides, the first and last marker would be cut in half.
            let room = if last > first { 0.02 * (last - first) } else { 1.0 };
            let step = nice_step(last - first, 6.0);
            let ticks = multiples(first - 1e-9 * step, last + 1e-9 * step, step);
            let ticks = if ticks.is_empty() { vec![first] } else { ticks };
            return Self { range: first - room..last + room, ticks, log2: false, decimals: Some(decimals(step)) };
        }
        let powers = || {
            let span = last.log2() - first.log2();
            let step = (span / MOST_TICKS as f64).ceil().max(1.0);
            multiples(first.log2().ceil(), last.log2(), step).into_iter().map(f64::exp2).collect()
        };
        let room = 2f64.powf((0.05 * (last / first).log2()).max(0.25));
        let distinct = positions.windows(2).all(|pair| pair[1] >= 1.3 * pair[0]);
        let ticks = if distinct && positions.len() <= MOST_TICKS { positions } else { powers() };
        let ticks = if ticks.is_empty() { vec![first] } else { ticks };
        Self { range: first / room..last * room, ticks, log2: true, decimals: None }
    }

    fn vertical(curves: &Curves) -> Self {
        let ends = points(curves).flat_map(|Point { mean, std, .. }| [mean - std, mean + std]);
        let (low, high) = bounds(ends.chain(curves.baselines.iter().map(|(_, value)| *value)));
        let step = nice_step(high - low, 5.0);
        let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        let high = if high > low { high } else { low + step };
        let ticks = multiples(low, high + 1e-9 * step, step);
        Self { range: low..high, ticks, log2: false, decimals: Some(decimals(step)) }
    }

    fn scaled(&self, value: f64) -> f64 {
        if self.log2 { value.log2() } else { value }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let (start, end) = (self.scaled(self.range.start), self.scaled(self.range.end));
        let share = (self.scaled(*value) - start) / (end - start);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        match self.decimals {
            Some(decimals) => format!("{value:.decimals$}"),
            None => value.to_string(),
        }
    }
}

/// The smallest and the largest value.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// A step of 1, 2 or 5 times a power of ten that cuts `span` into about `parts`.
fn nice_step(span: f64, parts: f64) -> f64 {
    if span <= 0.0 {
        return 1.0;
    }
    let raw = span / parts;
    let power = 10f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= 0.999 * raw).unwrap_or(10.0);
    factor * power
}

/// The multiples of `step` from `low` to `high`.
fn multiples(low: f64, high: f64, step: f64) -> Vec<f64> {
    let first = (low / step).ceil();
    let count = ((high / step).floor() - first).max(-1.0) as i64 + 1;
    // Adding 0 turns a negative zero into a plain one.
    (0..count).map(|number| (first + number as f64) * step + 0.0).collect()
}

/// Decimals needed to tell multiples of `step` apart.
fn decimals(step: f64) -> usize {
    (-step.log10().floor()).clamp(0.0, 9.0) as usize
}

#[cfg(test)]
mod tests {
    use super::{decimals, multiples, nice_step};

    #[test]
    fn steps_are_round_and_labels_tell_them_apart() {
        assert_eq!(nice_step(37.0, 5.0), 10.0);
        assert_eq!(nice_step(0.0, 5.0), 1.0);
        let step = nice_step(0.017, 5.0);
        assert_eq!(decimals(step), 3);
        assert_eq!(multiples(-20.0, 41.0, 20.0), [-20.0, 0.0, 20.0, 40.0]);
        assert_eq!(format!("{:.0}", multiples(-10.0, 0.0, 10.0)[1]), "0");
    }
}
