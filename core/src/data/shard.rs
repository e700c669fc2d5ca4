//! Shards: features of one long list that many processes encode, each its part, joined to what one process writes.
//!
//! The list has an identity, a digest over all that decides its features. A shard file carries it, its own place in the list
//! and a digest of what it was made from, so shards of different lists never meet, and one that is already there is not
//! made again.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::feature_file::FeatureFile;
use crate::digest::{Digest, DigestBuilder};
use crate::error::{Error, Result};

const FORMAT: &str = "shard of features";
/// The metadata key of a shard's place.
const KEY: &str = "shard";

/// Part `index` of `count`, counted from 0; written `index/count`, as schedulers count their tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// Its part of a list: neighbours, as many as every other shard has or one more.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there are more shards than `items`, so that some would be empty.
    pub fn range(self, items: usize) -> Result<Range<usize>> {
        if self.count > items {
            let reason = format!("there are only {items} to encode; use at most as many shards");
            return Err(Error::invalid(format!("shard {self}"), reason));
        }
        let start = |index: usize| (items as u128 * index as u128 / self.count as u128) as usize;
        Ok(start(self.index)..start(self.index + 1))
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        match numbers {
            Some((index, count)) if index < count => Ok(Self { index, count }),
            Some((_, count)) if count > 0 => {
                let reason = format!("shards are counted from 0: expected 0/{count} to {}/{count}", count - 1);
                Err(Error::invalid(format!("shard `{text}`"), reason))
            }
            _ => Err(Error::invalid(format!("shard `{text}`"), "expected INDEX/COUNT, as in `0/8`")),
        }
    }
}

impl TryFrom<String> for Shard {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

/// A list of what is to be encoded, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkList {
    /// Its identity.
    pub digest: Digest,
    /// How many entries it has.
    pub items: usize,
}

impl WorkList {
    /// The list of `items`, told apart by some bytes of each, to be encoded by `makers`: the backbone, adapters and
    /// whatever else decides a feature.
    pub fn new<T: AsRef<[u8]>>(makers: &[&str], items: impl IntoIterator<Item = T>) -> Self {
        let mut builder = DigestBuilder::default();
        builder.piece(b"inarch work list 1").piece(&makers.len().to_le_bytes());
        makers.iter().for_each(|maker| {
            builder.piece(maker.as_bytes());
        });
        let items = items.into_iter().fold(0, |count, item| {
            builder.piece(item.as_ref());
            count + 1
        });
        Self { digest: builder.finish(), items }
    }
}

/// Which part of which list a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardLabel {
    /// Identity of the [`WorkList`].
    pub work: Digest,
    /// Entries of the whole list.
    pub items: usize,
    /// Which part.
    pub shard: Shard,
    /// Digest of what the part was made from, image by image or text by text.
    pub content: Digest,
    /// Files of the part that could not be read.
    pub skipped: Vec<String>,
    /// Entries of the part that have no feature for that reason.
    pub unread: usize,
}

/// A file with the features of one shard.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureShard {
    /// Its features.
    pub features: FeatureFile,
    /// Its place.
    pub label: ShardLabel,
    /// What else the file says, which is the same in all shards.
    pub further: BTreeMap<String, String>,
}

impl FeatureShard {
    /// Writes a shard, whole or not at all. It is a features file of its own as well.
    ///
    /// # Errors
    /// As [`FeatureFile::write`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let label = serde_json::to_string(&self.label).map_err(|error| Error::malformed(FORMAT, path, error))?;
        let mut further = self.further.clone();
        further.insert(KEY.into(), label);
        self.features.write_with(path, &further)
    }

    /// Reads a shard.
    ///
    /// # Errors
    /// As [`FeatureFile::read`]; [`Error::Malformed`] for features that are no shard, or not as many as its place says.
    pub fn read(path: &Path) -> Result<Self> {
        let wrong = |reason: String| Error::malformed(FORMAT, path, reason);
        let (features, mut further) = FeatureFile::read_with(path)?;
        let Some(label) = further.remove(KEY) else {
            return Err(wrong("its features are no shard; `inarch encode --shard INDEX/COUNT` writes shards".into()));
        };
        let label: ShardLabel =
            serde_json::from_str(&label).map_err(|error| wrong(format!("metadata `{KEY}`: {error}")))?;
        let expected = label.shard.range(label.items)?.len();
        let found = features.rows() + label.unread;
        if found != expected {
            return Err(wrong(format!("shard {} has {expected} entries, found {found}", label.shard)));
        }
        Ok(Self { features, label, further })
    }
}

/// Joins all shards of a list, given in any order, to the file that one process writes.
///
/// # Errors
/// [`Error::Refused`] naming a file of another list or with a place that another file has, [`Error::Invalid`] naming the
/// shards that are missing, and the errors of [`FeatureShard::read`].
pub fn join_shards(paths: &[PathBuf]) -> Result<FeatureShard> {
    let read = paths.iter().map(|path| Ok((path, FeatureShard::read(path)?)));
    let mut shards = read.collect::<Result<Vec<_>>>()?;
    let Some(list) = commonest(&shards) else {
        return Err(Error::invalid(
            "shards",
            "there are none to join; name the files that `inarch encode --shard` wrote",
        ));
    };
    let (work, count) = list;
    if let Some((path, shard)) = shards.iter().find(|(_, shard)| work_of(shard) != (&work, count)) {
        return Err(Error::Refused {
            what: format!("`{}` is a shard of another list", path.display()),
            expected: format!("work {} in {count} shards", work.short()),
            found: format!("work {} in {} shards", shard.label.work.short(), shard.label.shard.count),
        });
    }
    shards.sort_by_key(|(_, shard)| shard.label.shard);
    if let Some(pair) = shards.windows(2).find(|pair| pair[0].1.label.shard == pair[1].1.label.shard) {
        return Err(Error::Refused {
            what: format!("`{}` and `{}`", pair[0].0.display(), pair[1].0.display()),
            expected: "each shard once".into(),
            found: format!("both are shard {}", pair[0].1.label.shard),
        });
    }
    let there = |index: &usize| shards.iter().any(|(_, shard)| shard.label.shard.index == *index);
    let missing: Vec<String> =
        (0..count).filter(|index| !there(index)).map(|index| format!("{index}/{count}")).collect();
    if !missing.is_empty() {
        let reason = format!("missing: {}; run `inarch encode` with `--shard` for each of them", abridged(&missing));
        return Err(Error::invalid(format!("shards of work {}", work.short()), reason));
    }
    let mut parts = shards.into_iter().map(|(_, shard)| shard);
    let mut whole = parts.next().expect("shard 0 is there");
    for part in parts {
        let FeatureFile { ids, labels, splits, values, .. } = part.features;
        whole.features.ids.extend(ids);
        whole.features.values.extend(values);
        whole.features.labels.iter_mut().for_each(|all| all.extend(labels.iter().flatten().cloned()));
        whole.features.splits.iter_mut().for_each(|all| all.extend(splits.iter().flatten()));
        whole.label.skipped.extend(part.label.skipped);
        whole.label.unread += part.label.unread;
    }
    Ok(whole)
}

/// The list of a shard, and into how many it was cut.
fn work_of(shard: &FeatureShard) -> (&Digest, usize) {
    (&shard.label.work, shard.label.shard.count)
}

/// What most of the files belong to, so that the odd one out is named; of equally many, what comes first.
fn commonest(shards: &[(&PathBuf, FeatureShard)]) -> Option<(Digest, usize)> {
    let mut found: Vec<((&Digest, usize), usize)> = Vec::new();
    for (_, shard) in shards {
        match found.iter_mut().find(|(work, _)| *work == work_of(shard)) {
            Some((_, files)) => *files += 1,
            None => found.push((work_of(shard), 1)),
        }
    }
    let most = found.iter().map(|(_, files)| *files).max()?;
    found.iter().find(|(_, files)| *files == most).map(|((work, count), _)| ((*work).clone(), *count))
}

/// A list for a message, cut off after twenty.
fn abridged(names: &[String]) -> String {
    match names.len() {
        more if more > 20 => format!("{} and {} more", names[..20].join(", "), more - 20),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::{FeatureShard, Shard, ShardLabel, WorkList, join_shards};
    use crate::data::{FeatureFile, FeatureKind, Split};
    use crate::digest::Digest;

    fn shard(text: &str) -> Shard {
        text.parse().unwrap()
    }

    /// Rows `from` to 7 at most of a list of seven, of which the fifth could not be read.
    fn part(text: &str, maker: &str) -> FeatureShard {
        let shard = shard(text);
        let range = shard.range(7).unwrap();
        let (kept, bad): (Vec<usize>, Vec<usize>) = range.partition(|row| *row != 4);
        let work = WorkList::new(&[maker], (0..7).map(|row| format!("{row}")));
        FeatureShard {
            features: FeatureFile {
                backbone: maker.into(),
                adapter: None,
                kind: FeatureKind::Image,
                ids: kept.iter().map(|row| format!("{row}.jpg")).collect(),
                labels: Some(kept.iter().map(|row| ["a", "b"][row % 2].into()).collect()),
                classes: Some(vec!["b".into(), "a".into()]),
                splits: Some(kept.iter().map(|row| [Split::Train, Split::Test][row % 2]).collect()),
                dim: 2,
                values: kept.iter().flat_map(|row| [*row as f32, 0.5]).collect(),
            },
            label: ShardLabel {
                work: work.digest,
                items: work.items,
                shard,
                content: Digest::of(text.as_bytes()),
                skipped: bad.iter().map(|row| format!("{row}.jpg")).collect(),
                unread: bad.len(),
            },
            further: BTreeMap::from([("logit_scale".to_string(), "100".to_string())]),
        }
    }

    /// What joining some shards says, each `(index/count, maker)`.
    fn join(parts: &[(&str, &str)]) -> Result<FeatureShard, String> {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..parts.len()).map(|at| folder.path().join(format!("part-{at}"))).collect();
        for (path, (text, maker)) in paths.iter().zip(parts) {
            part(text, maker).write(path).unwrap();
        }
        join_shards(&paths).map_err(|error| error.to_string())
    }

    #[test]
    fn shards_cover_a_list_in_order() {
        for (items, count) in [(7, 3), (8, 4), (1, 1), (100, 7), (5, 5)] {
            let ranges = (0..count).map(|index| shard(&format!("{index}/{count}")).range(items).unwrap());
            let covered: Vec<usize> = ranges.clone().flatten().collect();
            assert_eq!(covered, (0..items).collect::<Vec<_>>());
            let lengths: Vec<usize> = ranges.map(|range| range.len()).collect();
            assert!(lengths.iter().max().unwrap() - lengths.iter().min().unwrap() <= 1, "{lengths:?}");
        }
        assert!(shard("0/8").range(7).unwrap_err().to_string().contains("only 7"));
        for (text, words) in
            [("8/8", "0/8 to 7/8"), ("1", "INDEX/COUNT"), ("0/0", "INDEX/COUNT"), ("-1/3", "INDEX/COUNT")]
        {
            assert!(text.parse::<Shard>().unwrap_err().to_string().contains(words), "{text}");
        }
    }

    #[test]
    fn all_shards_in_any_order_make_the_whole() {
        let joined = join(&[("2/3", "m"), ("0/3", "m"), ("1/3", "m")]).unwrap();
        let whole = part("0/1", "m");
        assert_eq!((&joined.features, &joined.further), (&whole.features, &whole.further));
        assert_eq!(joined.label.skipped, ["4.jpg"]);
    }

    #[test]
    fn what_is_missing_foreign_or_doubled_is_named() {
        let missing = join(&[("0/4", "m"), ("2/4", "m")]).unwrap_err();
        assert!(missing.contains("missing: 1/4, 3/4;"), "{missing}");
        let foreign = join(&[("0/3", "other"), ("1/3", "m"), ("2/3", "m")]).unwrap_err();
        assert!(foreign.contains("part-0` is a shard of another list"), "{foreign}");
        let otherwise_cut = join(&[("0/3", "m"), ("1/3", "m"), ("1/2", "m")]).unwrap_err();
        assert!(otherwise_cut.contains("part-2`") && otherwise_cut.contains("in 2 shards"), "{otherwise_cut}");
        let doubled = join(&[("0/2", "m"), ("1/2", "m"), ("1/2", "m")]).unwrap_err();
        assert!(doubled.contains("both are shard 1/2"), "{doubled}");
        assert!(join(&[]).unwrap_err().contains("none to join"));
    }

    #[test]
    fn what_is_no_shard_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.safetensors");
        let mut short = part("0/2", "m");
        short.features.write(&path).unwrap();
        assert!(FeatureShard::read(&path).unwrap_err().to_string().contains("no shard"));
        short.label.items = 9;
        short.write(&path).unwrap();
        assert!(FeatureShard::read(&path).unwrap_err().to_string().contains("shard 0/2 has 4 entries, found 3"));
    }

    #[test]
    fn a_list_is_its_entries_and_makers() {
        let list = |makers: &[&str], items: &[&str]| WorkList::new(makers, items).digest;
        let same = list(&["m", "n"], &["1", "2"]);
        assert_eq!(same, list(&["m", "n"], &["1", "2"]));
        let others = [list(&["m"], &["n", "1", "2"]), list(&["m", "n"], &["2", "1"]), list(&["m", "n"], &["12"])];
        assert!(others.iter().all(|other| *other != same));
    }
}
