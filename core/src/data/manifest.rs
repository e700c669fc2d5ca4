//! Lists of images as CSV or JSON lines, with labels or with captions.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::{Map, Value};

use super::caption::{Captioned, CaptionedSet};
use super::dataset::{Dataset, Source};
use super::entry::{Entry, LABEL_SEPARATOR, dataset_of, split_labels};
use super::options::DataOptions;
use super::split::Split;
use crate::error::{Error, Result};
use crate::file;

const FORMAT: &str = "manifest";

/// What a manifest may hold, in the order of [`Row::fields`].
const COLUMNS: [&str; 5] = ["path", "label", "caption", "split", "group"];

/// What a manifest turned out to be.
#[derive(Debug, Clone)]
pub enum Manifest {
    /// Columns `path,label[,split][,group]`.
    Labelled(Dataset),
    /// Columns `path,caption[,label]`.
    Captioned(CaptionedSet),
}

/// Reads a CSV file with a header, or JSON lines (`.jsonl`, `.ndjson`) with the same keys. Paths are relative to
/// the root of the options, by default the folder of the manifest. Without a `split` column each class is split by
/// [`assign_group_splits`](super::assign_group_splits). What stands in `group`, a patient for example, is never in two
/// splits. A label `a;b`, or a list in JSON, gives an image several classes, and then an empty one gives it none.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] naming the line for an unknown column, an empty field, an unknown split or a
/// duplicate, and for all that [`Dataset::validate`] checks.
pub fn read_manifest(path: &Path, options: &DataOptions) -> Result<Manifest> {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    let rows = match extension.as_deref() {
        Some("jsonl" | "ndjson") => json_rows(path)?,
        _ => csv_rows(path)?,
    };
    if rows.is_empty() {
        return Err(Error::malformed(FORMAT, path, "it lists no images"));
    }
    let root = options.root.as_deref().or(path.parent()).unwrap_or(Path::new("."));
    let reader = Reader { path, root };
    if rows.iter().any(|row| row.field(2).is_some()) {
        reader.captioned(&rows).map(Manifest::Captioned)
    } else {
        reader.labelled(&rows, options).map(Manifest::Labelled)
    }
}

/// Reads a manifest with captions.
///
/// # Errors
/// As [`read_manifest`], and [`Error::Malformed`] when it has labels only.
pub fn read_captions(path: &Path, root: Option<&Path>) -> Result<CaptionedSet> {
    match read_manifest(path, &DataOptions::at(root))? {
        Manifest::Captioned(set) => Ok(set),
        Manifest::Labelled(_) => Err(Error::malformed(FORMAT, path, "it has no `caption` column, only labels")),
    }
}

/// The fields of one line; an empty one counts as missing.
struct Row {
    line: u64,
    fields: [Option<String>; 5],
    /// Whether the label was a list.
    listed: bool,
}

impl Row {
    fn field(&self, column: usize) -> Option<&str> {
        self.fields[column].as_deref()
    }
}

struct Reader<'a> {
    path: &'a Path,
    root: &'a Path,
}

impl Reader<'_> {
    fn labelled(&self, rows: &[Row], options: &DataOptions) -> Result<Dataset> {
        let with_splits = rows.iter().any(|row| row.field(3).is_some());
        let several = |row: &Row| row.listed || row.field(1).is_some_and(|label| label.contains(LABEL_SEPARATOR));
        let multi_label = rows.iter().any(several);
        let with_groups = rows.iter().any(|row| row.field(4).is_some());
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            let id = self.required(row, 0)?.replace('\\', "/");
            let labels = match multi_label {
                true => split_labels(row.field(1).unwrap_or_default()),
                false => vec![self.required(row, 1)?.to_owned()],
            };
            let split = if with_splits { Some(self.split(row)?) } else { None };
            // One without a group among others with one is more likely a gap than a patient of its own.
            let group = if with_groups { Some(self.required(row, 4)?.to_owned()) } else { None };
            let source = Source::Image(self.root.join(&id));
            entries.push(Entry { split, id, source, labels, group });
        }
        dataset_of(self.path, entries, multi_label, options)
    }

    fn captioned(&self, rows: &[Row]) -> Result<CaptionedSet> {
        let (mut seen, mut counts) = (HashSet::new(), HashMap::new());
        let mut examples = Vec::with_capacity(rows.len());
        for row in rows {
            let (image, caption) = (self.required(row, 0)?.replace('\\', "/"), self.required(row, 2)?);
            if row.field(4).is_some() {
                return Err(self.wrong(row.line, "captions have no `group`; their `label` says what belongs together"));
            }
            if row.field(3).is_some() {
                return Err(self.wrong(row.line, "captions have no `split`; put each split into a manifest of its own"));
            }
            if !seen.insert((image.clone(), caption)) {
                return Err(self.wrong(row.line, &format!("`{image}` is listed twice with the same caption")));
            }
            let count = counts.entry(image.clone()).or_insert(0);
            *count += 1;
            let id = if *count == 1 { image.clone() } else { format!("{image}#{count}") };
            let group = row.field(1).map(str::to_owned);
            examples.push(Captioned { id, path: self.root.join(&image), caption: caption.to_owned(), group });
        }
        Ok(CaptionedSet { examples })
    }

    fn split(&self, row: &Row) -> Result<Split> {
        let name = self.required(row, 3)?;
        let unknown = || self.wrong(row.line, &format!("split is `{name}`; expected {}", Split::NAMES));
        Split::from_name(name).ok_or_else(unknown)
    }

    fn required<'r>(&self, row: &'r Row, column: usize) -> Result<&'r str> {
        row.field(column).ok_or_else(|| self.wrong(row.line, &format!("`{}` is missing or empty", COLUMNS[column])))
    }

    fn wrong(&self, line: u64, reason: &str) -> Error {
        Error::malformed(FORMAT, self.path, format!("line {line}: {reason}"))
    }
}

/// The column of a name.
fn column(path: &Path, line: u64, name: &str) -> Result<usize> {
    COLUMNS.iter().position(|column| *column == name).ok_or_else(|| {
        let cure = if name.contains([';', '\t']) { "separate columns by commas" } else { "leave others out" };
        let reason = format!(
            "line {line}: unknown column `{name}`; expected `path`, `label` or `caption`, `split`, `group`: {cure}"
        );
        Error::malformed(FORMAT, path, reason)
    })
}

fn csv_rows(path: &Path) -> Result<Vec<Row>> {
    let bytes = file::read(path)?;
    let wrong = |error: csv::Error| Error::malformed(FORMAT, path, error);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes.as_slice());
    let header = reader.headers().map_err(wrong)?.clone();
    let columns = header.iter().map(|name| column(path, 1, name)).collect::<Result<Vec<_>>>()?;
    if columns.iter().collect::<HashSet<_>>().len() != columns.len() {
        return Err(Error::malformed(FORMAT, path, "line 1: a column is named twice"));
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(wrong)?;
        let mut fields = [const { None }; 5];
        for (&column, text) in columns.iter().zip(record.iter()) {
            fields[column] = Some(text.to_owned()).filter(|text| !text.is_empty());
        }
        rows.push(Row { line: record.position().map_or(0, csv::Position::line), fields, listed: false });
    }
    Ok(rows)
}

fn json_rows(path: &Path) -> Result<Vec<Row>> {
    let text = file::read_text(path)?;
    let mut rows = Vec::new();
    // Editors of Windows begin a text with a mark.
    let text = text.trim_start_matches('\u{feff}');
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |reason: String| Error::malformed(FORMAT, path, format!("line {number}: {reason}"));
        let object: Map<String, Value> = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
        let mut fields = [const { None }; 5];
        let mut listed = false;
        for (key, value) in &object {
            let text = match value {
                Value::Null => None,
                Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
                Value::Number(number) if matches!(key.as_str(), "label" | "group") => Some(number.to_string()),
                Value::Array(labels) if key == "label" => {
                    listed = true;
                    let names: Option<Vec<&str>> = labels.iter().map(Value::as_str).collect();
                    Some(names.ok_or_else(|| wrong(format!("`label` is {value}; expected a list of texts")))?.join(";"))
                }
                other => return Err(wrong(format!("`{key}` is {other}; expected a text"))),
            };
            fields[column(path, number, key)?] = text;
        }
        rows.push(Row { line: number, fields, listed });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::{Manifest, read_captions, read_manifest};
    use crate::data::{DataOptions, Dataset, Source};

    fn read(name: &str, text: &str) -> Result<Manifest, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        read_manifest(&path, &DataOptions::at(Some("root".as_ref()))).map_err(|error| error.to_string())
    }

    fn labelled(name: &str, text: &str) -> Dataset {
        match read(name, text).unwrap() {
            Manifest::Labelled(dataset) => dataset,
            Manifest::Captioned(_) => panic!("expected labels"),
        }
    }

    #[test]
    fn csv_and_json_lines_give_the_same() {
        let csv =
            labelled("m.csv", "path,label,split\nx/1.jpg, zebra ,train\n\"x,2.jpg\",ape,train\nx/3.jpg,ape,valid\n");
        let json = labelled(
            "m.jsonl",
            "{\"path\": \"x/1.jpg\", \"label\": \"zebra\", \"split\": \"train\"}\n\n\
             {\"split\": \"train\", \"path\": \"x,2.jpg\", \"label\": \"ape\"}\n\
             {\"path\": \"x/3.jpg\", \"label\": \"ape\", \"split\": \"val\"}\n",
        );
        assert_eq!(csv.digest(), json.digest());
        for (name, text) in [
            ("m.csv", "\u{feff}path,label,split\r\na,x,train\r\nb,y,train\r\n"),
            (
                "m.jsonl",
                "\u{feff}{\"path\": \"a\", \"label\": \"x\", \"split\": \"train\"}\r\n\
                         {\"path\": \"b\", \"label\": \"y\", \"split\": \"train\"}\r\n",
            ),
        ] {
            assert_eq!(labelled(name, text).classes, ["x", "y"], "{name}");
        }
        assert_eq!(csv.classes, ["ape", "zebra"]);
        assert_eq!((csv.train[1].id.as_str(), csv.train[1].label), ("x/1.jpg", 1));
        assert_eq!(csv.val[0].source, Source::Image("root/x/3.jpg".into()));
        let free = labelled("m.csv", "label,path\n1,a.png\n1,b.png\n2,c.png\n2,d.png\n");
        assert_eq!((free.train.len(), free.val.len(), free.test.len()), (2, 0, 2));
    }

    #[test]
    fn a_label_may_be_several() {
        let csv = labelled("m.csv", "path,label,split\n1,b;a,train\n2,,train\n3,a,test\n4,c; b,train\n");
        let json = labelled(
            "m.jsonl",
            "{\"path\": \"1\", \"label\": [\"a\", \"b\"], \"split\": \"train\"}\n\
             {\"path\": \"2\", \"label\": [], \"split\": \"train\"}\n\
             {\"path\": \"3\", \"label\": \"a\", \"split\": \"test\"}\n\
             {\"path\": \"4\", \"label\": [\"b\", \"c\"], \"split\": \"train\"}\n",
        );
        assert!(csv.multi_label && json.multi_label);
        assert_eq!(csv.digest(), json.digest());
        let labels: Vec<&[usize]> = csv.train.iter().map(|example| &example.labels[..]).collect();
        assert_eq!(labels, [&[0, 1][..], &[], &[1, 2]]);
        assert_eq!(csv.classes, ["a", "b", "c"]);
        assert!(csv.restrict(&["a".into(), "b".into()]).is_err());
    }

    #[test]
    fn a_rare_label_beside_others_can_be_learned_and_tested() {
        for rare in 0..30 {
            let rows: String = (0..30)
                .map(|row| {
                    format!(
                        "{row}.png,{}\n",
                        if (row + 30 - rare) % 30 < 2 { "a;rare" } else { ["a", "b;a", ""][row % 3] }
                    )
                })
                .collect();
            let dataset = labelled("m.csv", &format!("path,label\n{rows}"));
            let place = dataset.classes.iter().position(|class| class == "rare").unwrap();
            let held =
                |split: &[crate::data::Example]| split.iter().filter(|example| example.labels.contains(&place)).count();
            assert_eq!((held(&dataset.train), held(&dataset.test)), (1, 1), "{rare}");
        }
    }

    #[test]
    fn groups_keep_rows_together() {
        let rows: String = (0..60).map(|row| format!("{row}.png,{},p{}\n", ["x", "y"][row % 2], row / 6)).collect();
        let dataset = labelled("m.csv", &format!("path,label,group\n{rows}"));
        assert!(!dataset.train.is_empty() && !dataset.test.is_empty());
        dataset.check_groups("m.csv".as_ref()).unwrap();
        for (words, text) in [
            ("group `p1` is in train and in test", "path,label,group,split\na,x,p1,train\nb,y,p2,train\nc,x,p1,test\n"),
            ("line 3: `group` is missing", "path,label,group\na,x,p1\nb,y,\n"),
        ] {
            let message = read("m.csv", text).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn captions_may_repeat_an_image() {
        let text = "path,caption,label\na.jpg,a red hat,hat\na.jpg,\"a hat, worn\",\nb.jpg,shoes,shoe\n";
        let Manifest::Captioned(set) = read("m.csv", text).unwrap() else { panic!("expected captions") };
        let ids: Vec<&str> = set.examples.iter().map(|example| example.id.as_str()).collect();
        assert_eq!(ids, ["a.jpg", "a.jpg#2", "b.jpg"]);
        assert_eq!((set.examples[1].caption.as_str(), &set.examples[1].group), ("a hat, worn", &None));
        assert_eq!(set.examples[2].group.as_deref(), Some("shoe"));
        assert!(read_captions("no/such.csv".as_ref(), None).is_err());
    }

    #[test]
    fn errors_name_the_line() {
        for (name, text, words) in [
            ("m.csv", "path,label\n", "lists no images"),
            ("m.csv", "path,label,spilt\na,b,train\n", "line 1: unknown column `spilt`"),
            ("m.csv", "path;label\na;b\n", "separate columns by commas"),
            ("m.csv", "path,path\na,b\n", "named twice"),
            ("m.csv", "path,label\na,x\nb\n", "line: 3"),
            ("m.csv", "path,label\na,x\nb,\n", "line 3: `label` is missing"),
            ("m.csv", "path,label,split\na,x,train\nb,y,dev\n", "line 3: split is `dev`"),
            ("m.csv", "path,label\na,x\na,y\n", "listed more than once"),
            ("m.csv", "path,label\na,x\nb,x\n", "only `x`"),
            ("m.csv", "path,caption\na,x\na,x\n", "line 3: `a` is listed twice"),
            ("m.csv", "path,caption\na,x\nb,\n", "line 3: `caption` is missing"),
            ("m.jsonl", "{\"path\": \"a\"", "line 1: EOF"),
            ("m.jsonl", "{\"path\": [1]}", "expected a text"),
            ("m.jsonl", "{\"path\": \"a\", \"kind\": \"x\"}", "unknown column `kind`"),
        ] {
            let message = read(name, text).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }
}
