//! What a report says, as plain data.

use serde::Serialize;

use super::error::ReportError;

/// A whole report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Page {
    /// Its title.
    pub title: String,
    /// The result in a sentence or two.
    pub lead: String,
    /// Names and values that describe the run: backbone, data, seeds, time.
    pub facts: Vec<(String, String)>,
    /// Its sections, in reading order.
    pub sections: Vec<Section>,
}

/// One heading with what is shown under it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Section {
    /// The heading.
    pub title: String,
    /// What to see in it; an empty line starts a new paragraph.
    pub text: String,
    /// What is shown.
    pub body: Body,
}

/// What a section shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Body {
    /// Lines over a common axis.
    Curves(Curves),
    /// Which class is taken for which.
    Confusion(Confusion),
    /// Shares by row and column.
    Heat(Heat),
    /// Rows and columns.
    Table(Table),
    /// Images with their verdict.
    Gallery(Gallery),
}

/// Lines over a common axis.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curves {
    /// What the horizontal axis counts, with its unit.
    pub x_label: String,
    /// What the vertical axis measures, with its unit.
    pub y_label: String,
    /// Equal steps for equal factors, as for shots 1, 2, 4, 8, 16.
    pub log2_x: bool,
    /// The lines.
    pub series: Vec<Series>,
    /// Values that do not depend on `x`, by name.
    pub baselines: Vec<(String, f64)>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// Its points, in any order.
    pub points: Vec<Point>,
}

/// A measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Where.
    pub x: f64,
    /// Its mean.
    pub mean: f64,
    /// Its standard deviation; 0 for a single measurement.
    pub std: f64,
}

/// How often an image of one class was given to another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Confusion {
    /// Class names.
    pub classes: Vec<String>,
    /// Images by true class (row) and predicted class (column).
    pub counts: Vec<Vec<usize>>,
}

/// Shares by row and column, as of accuracy by moment and task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Heat {
    /// Column names.
    pub columns: Vec<String>,
    /// Row names.
    pub rows: Vec<String>,
    /// Shares of 0 to 1, row by row; `None` where there is none.
    pub values: Vec<Vec<Option<f64>>>,
}

/// Rows and columns. A column of numbers is set flush right.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// Column names.
    pub header: Vec<String>,
    /// Cells, row by row; the first of a row names it.
    pub rows: Vec<Vec<String>>,
}

/// Images with their verdict.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gallery {
    /// The images.
    pub items: Vec<GalleryItem>,
}

/// An image with its verdict.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GalleryItem {
    /// The image itself, `data:image/jpeg;base64,..`.
    pub image_data_uri: String,
    /// What it is and what it was taken for.
    pub caption: String,
    /// Whether that is right.
    pub good: bool,
}

impl Section {
    /// Checks what the renderer relies on.
    pub(super) fn check(&self) -> Result<(), ReportError> {
        match &self.body {
            Body::Curves(curves) => self.check_curves(curves),
            Body::Confusion(Confusion { classes, counts }) => {
                self.check_size("rows of counts", classes.len(), counts.len())?;
                let mut rows = classes.iter().zip(counts);
                rows.try_for_each(|(class, row)| {
                    self.check_size(&format!("counts in the row of `{class}`"), classes.len(), row.len())
                })
            }
            Body::Heat(Heat { columns, rows, values }) => {
                self.check_size("rows of values", rows.len(), values.len())?;
                for (name, row) in rows.iter().zip(values) {
                    self.check_size(&format!("values in the row `{name}`"), columns.len(), row.len())?;
                    for value in row.iter().flatten() {
                        self.check_number(format!("a value of `{name}`"), *value, false)?;
                    }
                }
                Ok(())
            }
            Body::Table(Table { header, rows }) => rows.iter().enumerate().try_for_each(|(index, row)| {
                self.check_size(&format!("cells in row {index}"), header.len(), row.len())
            }),
            Body::Gallery(Gallery { items }) => items.iter().enumerate().try_for_each(|(item, image)| {
                let uri = &image.image_data_uri;
                if uri.starts_with("data:image/") {
                    return Ok(());
                }
                Err(ReportError::Image { section: self.title.clone(), item, found: uri.chars().take(40).collect() })
            }),
        }
    }

    fn check_curves(&self, curves: &Curves) -> Result<(), ReportError> {
        if curves.series.iter().all(|series| series.points.is_empty()) {
            return Err(ReportError::NoPoint { section: self.title.clone() });
        }
        for Series { name, points } in &curves.series {
            for point in points {
                self.check_number(format!("x of `{name}`"), point.x, false)?;
                self.check_number(format!("mean of `{name}`"), point.mean, false)?;
                self.check_number(format!("std of `{name}`"), point.std, true)?;
                if curves.log2_x && point.x <= 0.0 {
                    let (section, what) = (self.title.clone(), format!("x of `{name}` on a logarithmic axis"));
                    return Err(ReportError::Number { section, what, expected: "greater than 0", found: point.x });
                }
            }
        }
        curves
            .baselines
            .iter()
            .try_for_each(|(name, value)| self.check_number(format!("baseline `{name}`"), *value, false))
    }

    fn check_number(&self, what: String, found: f64, deviation: bool) -> Result<(), ReportError> {
        if found.is_finite() && !(deviation && found < 0.0) {
            return Ok(());
        }
        let expected = if deviation { "finite and at least 0" } else { "finite" };
        Err(ReportError::Number { section: self.title.clone(), what, expected, found })
    }

    fn check_size(&self, what: &str, expected: usize, found: usize) -> Result<(), ReportError> {
        if expected == found {
            return Ok(());
        }
        Err(ReportError::Size { section: self.title.clone(), what: what.into(), expected, found })
    }
}
