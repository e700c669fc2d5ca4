//! What a run computes once, and what in every step: decided here, and told before it begins.

use std::fmt;

use inarch_core::Seed;
use inarch_core::backbone::{Backbone, Entry, Frames, Mode, Sites as _, Tower};
use inarch_peft::Adapter;
use serde::Serialize;

use crate::clips;
use crate::objective::Objective;
use crate::recipe::{Recipe, TrainPrecision};
use crate::shards::shard_size;

/// Bytes of activations that are stored instead of computed again in every step.
const STORE_BYTES: usize = 1 << 30;

/// Bytes of activations that a step keeps for its way back; beyond, every shard computes its own again.
pub(crate) const KEPT_BYTES: usize = 2 << 30;

/// Values that a block keeps for the way back, for each value of its token stream: normalised twice, projected six times,
/// four of them widths in the hidden layer before and after its activation, and their sums.
const KEPT_VALUES: usize = 20;

/// Fixed views that stand for fresh ones where features are computed once.
const FRESH_VIEWS: usize = 32;

/// How far images are run once and stored, or `None` when every step starts from pixels: the adapter's entry decides, and
/// whether views are fixed and their activations fit.
pub(crate) fn stored_entry(backbone: &Backbone, adapter: &Adapter, recipe: &Recipe, images: usize) -> Option<Entry> {
    let entry = adapter.entry(Tower::Image).min(Entry::Feature);
    let rows = images * recipe.views * frames(entry, recipe);
    let fits = recipe.views > 0 && stored_bytes(backbone, entry, rows) <= STORE_BYTES;
    let few = entry >= Entry::Pool && !backbone.crosses();
    // Frozen features of frames are few bytes, like those of clips.
    (few || fits).then_some(entry)
}

/// Rows of the image tower at `entry` for each view of an example.
fn frames(entry: Entry, recipe: &Recipe) -> usize {
    if entry >= Entry::Feature { 1 } else { clips::frames(recipe.clips.as_ref()).count() }
}

/// How many views of each image are run once: as many as the recipe fixes. Where fresh ones are asked for and features are
/// stored, as many fixed ones stand for them as there are epochs, within a bound and as far as there is room for one of all images,
/// of `view_bytes`, after the other; a features file has one row an image.
pub(crate) fn stored_views(recipe: &Recipe, epochs: usize, from_file: bool, view_bytes: usize) -> usize {
    match recipe.views {
        _ if from_file => 1,
        0 => epochs.min(FRESH_VIEWS).min(STORE_BYTES / view_bytes.max(1)).max(1),
        count => count,
    }
}

/// Bytes of one view of so many images at `entry`.
pub(crate) fn view_bytes(backbone: &Backbone, entry: Entry, recipe: &Recipe, images: usize) -> usize {
    stored_bytes(backbone, entry, images * frames(entry, recipe))
}

fn stored_bytes(backbone: &Backbone, entry: Entry, rows: usize) -> usize {
    let spec = &backbone.spec().image;
    let values = match entry {
        Entry::Pool | Entry::Feature | Entry::Never => backbone.image_values(),
        Entry::Head => spec.transformer.width,
        Entry::Tokens | Entry::Block(_) => spec.tokens() * spec.transformer.width,
        Entry::Trunk(block) => map_values(backbone, block),
    };
    rows * values * size_of::<f32>()
}

/// Values of the map that enters a block of the trunk.
fn map_values(backbone: &Backbone, block: usize) -> usize {
    let spec = &backbone.spec().image;
    spec.style.trunk.as_ref().map_or(0, |trunk| {
        let [side, channels] = trunk.map(spec.size, block);
        side * side * channels
    })
}

/// Multiply-adds of the blocks of a trunk from an entry on, for an image.
fn trunk_products(backbone: &Backbone, from: Entry) -> u64 {
    let spec = &backbone.spec().image;
    spec.style.trunk.as_ref().map_or(0, |trunk| {
        let products = |block| trunk.products(spec.size, block) as u64;
        (before(from, trunk.blocks(), 0)..trunk.blocks()).map(products).sum()
    })
}

/// Texts of a step that a tower runs, their tokens when each part ends at its longest, and those that run.
fn step_texts(adapter: &Adapter, objective: &Objective<'_>, batch: usize) -> [usize; 3] {
    // Texts that depend on the image are there once for each.
    let each = if adapter.conditions_text() { batch } else { 1 };
    objective.text_tokens(adapter, Mode::Train(Seed::new(0))).map(|count| count * each)
}

/// About how many bytes of activations a step keeps for its way back.
pub(crate) fn kept_bytes(
    backbone: &Backbone,
    adapter: &Adapter,
    objective: &Objective<'_>,
    recipe: &Recipe,
    batch: usize,
) -> usize {
    let batch_rows = batch * clips::frames(recipe.clips.as_ref()).count();
    let [_, _, run] = step_texts(adapter, objective, batch);
    // Images that meet texts in the text tower do so anew in every step.
    let run = run + batch * objective.tokens_met(backbone, batch);
    let of = |tower: Tower, tokens: usize| {
        let blocks = behind(backbone, tower, adapter.entry(tower));
        let kept = blocks * tokens * backbone.width(tower) * KEPT_VALUES * size_of::<f32>();
        kept + if recipe.train.precision == TrainPrecision::Bf16 {
            blocks * reduced_bytes(backbone, tower, batch)
        } else {
            0
        }
    };
    // A trunk's block keeps its maps in several widths, narrower and wider than the one that leaves it: about as many
    // values.
    let trunk = before(adapter.entry(Tower::Image), backbone.trunk_depth(), 0)..backbone.trunk_depth();
    let maps: usize = trunk.map(|block| map_values(backbone, block + 1)).sum();
    let maps = batch_rows * maps * KEPT_VALUES * size_of::<f32>();
    maps + of(Tower::Image, batch_rows * backbone.spec().image.tokens()) + of(Tower::Text, run)
}

/// Bytes of the copies in two bytes a value that the parts of a step make of the weights of a block.
fn reduced_bytes(backbone: &Backbone, tower: Tower, batch: usize) -> usize {
    let spec = match tower {
        Tower::Image => &backbone.spec().image.transformer,
        Tower::Text => &backbone.spec().text.transformer,
    };
    let parts = batch.div_ceil(shard_size(batch, Frames::STILL));
    parts * spec.width * (4 * spec.attention_width() + 2 * spec.mlp) * 2
}

/// The work of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The method.
    pub method: String,
    /// The image side.
    pub image: TowerPlan,
    /// The text side.
    pub text: TowerPlan,
    /// Images of a step.
    pub batch: usize,
    /// Images that are run once, each in `views` views.
    pub stored_images: usize,
    /// Views of each image that are stored; 0 when every step starts from fresh pixels.
    pub views: usize,
    /// Bytes of what is stored.
    pub stored_bytes: usize,
    /// Texts of a step.
    pub texts: usize,
    /// Their tokens when each is padded to the whole context.
    pub tokens_padded: usize,
    /// Their tokens when texts end at the longest of their part.
    pub tokens_cut: usize,
    /// Their tokens when what they share at the front runs once.
    pub tokens_run: usize,
    /// About how many bytes of activations a step needs on its way back.
    pub activation_bytes: usize,
    /// Whether they are computed again, part by part, as they are too many to be kept.
    pub recomputed: bool,
    /// Multiply-adds of a step.
    pub step: u64,
    /// Multiply-adds of a step that stores nothing and pads every text.
    pub naive_step: u64,
}

/// One tower.
#[derive(Debug, Clone, Serialize)]
pub struct TowerPlan {
    /// Where the adapter enters.
    pub entry: String,
    /// Blocks that run in every step, of `blocks`.
    pub blocks_run: usize,
    /// Blocks of the tower, with those of a convolutional trunk.
    pub blocks: usize,
}

impl TowerPlan {
    fn new(backbone: &Backbone, tower: Tower, adapter: Entry, from: Entry) -> Self {
        let trunk = if tower == Tower::Image { backbone.trunk_depth() } else { 0 };
        let blocks = trunk + backbone.depth(tower);
        let entry = match adapter {
            Entry::Trunk(block) => format!("block {block} of the trunk"),
            Entry::Tokens => "tokens".into(),
            Entry::Block(block) => format!("block {block}"),
            Entry::Head => "final normalisation".into(),
            Entry::Pool => "features of frames".into(),
            Entry::Feature => "feature".into(),
            Entry::Never => "nowhere".into(),
        };
        Self { entry, blocks_run: blocks - before(from, trunk, backbone.depth(tower)), blocks }
    }
}

/// How many of the blocks of a trunk and of those behind it lie before an entry.
fn before(entry: Entry, trunk: usize, blocks: usize) -> usize {
    match entry {
        Entry::Trunk(block) => block.min(trunk),
        Entry::Tokens => trunk,
        Entry::Block(block) => trunk + block.min(blocks),
        Entry::Head | Entry::Pool | Entry::Feature | Entry::Never => trunk + blocks,
    }
}

/// How many transformer blocks of a tower lie behind an entry.
fn behind(backbone: &Backbone, tower: Tower, entry: Entry) -> usize {
    backbone.depth(tower) - before(entry, 0, backbone.depth(tower))
}

impl Plan {
    pub(crate) fn new(
        backbone: &Backbone,
        recipe: &Recipe,
        (images, from_file): (usize, bool),
        objective: &Objective<'_>,
        adapter: &Adapter,
    ) -> Self {
        let entries = [Tower::Image, Tower::Text].map(|tower| adapter.entry(tower));
        let stored = stored_entry(backbone, adapter, recipe, images);
        let start = backbone.beginning(Tower::Image);
        let image = TowerPlan::new(backbone, Tower::Image, entries[0], stored.unwrap_or(start));
        let text = TowerPlan::new(backbone, Tower::Text, entries[1], entries[1]);
        let batch = recipe.train.batch.min(images);
        let [texts, cut, run] = step_texts(adapter, objective, batch);
        let padded = texts * backbone.spec().text.context;
        let met = batch * objective.tokens_met(backbone, batch);
        let [cut, run, padded] = [cut, run, padded].map(|tokens| tokens + met);
        let text = if met > 0 { TowerPlan { blocks_run: text.blocks, ..text } } else { text };
        // A block's products take 12 width^2 multiply-adds a token; going back to the adapter takes as many again.
        let cost = |tower: Tower, tokens: usize, forward: usize, backward: usize| {
            let width = backbone.width(tower) as u64;
            12 * width * width * tokens as u64 * (forward + backward) as u64
        };
        let rows = batch * clips::frames(recipe.clips.as_ref()).count();
        let pixels = rows * backbone.spec().image.tokens();
        let back = [Tower::Image, Tower::Text].map(|tower| behind(backbone, tower, adapter.entry(tower)));
        let image_step = |from: Entry| {
            let trunk = trunk_products(backbone, from) + trunk_products(backbone, entries[0]);
            rows as u64 * trunk + cost(Tower::Image, pixels, behind(backbone, Tower::Image, from), back[0])
        };
        let step = image_step(stored.unwrap_or(start)) + cost(Tower::Text, run, text.blocks_run, back[1]);
        let naive = image_step(start) + cost(Tower::Text, padded, text.blocks, back[1]);
        let activation_bytes = kept_bytes(backbone, adapter, objective, recipe, batch);
        let (steps, steps_per_epoch) = recipe.steps(images);
        let view_bytes = stored.map_or(0, |entry| view_bytes(backbone, entry, recipe, images));
        let views = stored.map_or(0, |_| stored_views(recipe, steps.div_ceil(steps_per_epoch), from_file, view_bytes));
        Self {
            method: recipe.method.name().into(),
            image,
            text,
            batch,
            stored_images: stored.map_or(0, |_| images),
            views,
            stored_bytes: views * view_bytes,
            texts,
            tokens_padded: padded,
            tokens_cut: cut,
            tokens_run: run,
            activation_bytes,
            recomputed: activation_bytes > KEPT_BYTES,
            step,
            naive_step: naive,
        }
    }

    /// How many times fewer multiply-adds a step has than one that stores nothing and pads every text; `None` when the towers
    /// do not run at all.
    pub fn saving(&self) -> Option<f64> {
        (self.step > 0).then(|| self.naive_step as f64 / self.step as f64)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { image, text, .. } = self;
        let mebibytes = self.stored_bytes as f64 / f64::from(1 << 20);
        writeln!(f, "{} enters the image tower at: {}; the text tower at: {}", self.method, image.entry, text.entry)?;
        match self.views {
            0 => writeln!(f, "images: nothing is stored; {} blocks from fresh pixels in every step", image.blocks_run)?,
            views => writeln!(
                f,
                "images: {} x {views} views run once and stored, {mebibytes:.1} MiB; {} of {} blocks in every step",
                self.stored_images, image.blocks_run, image.blocks
            )?,
        }
        match text.blocks_run {
            0 => writeln!(f, "texts: run once")?,
            blocks => writeln!(
                f,
                "texts: {} in every step, {blocks} of {} blocks; {} tokens padded, {} cut at the longest, {} with shared \
                 beginnings run once",
                self.texts, text.blocks, self.tokens_padded, self.tokens_cut, self.tokens_run
            )?,
        }
        if self.activation_bytes > 0 {
            let mebibytes = self.activation_bytes as f64 / f64::from(1 << 20);
            let how = if self.recomputed { "computed again part by part, for memory" } else { "kept" };
            writeln!(f, "way back: about {mebibytes:.0} MiB of activations, {how}")?;
        }
        match self.saving() {
            Some(saving) => {
                let (unit, name) = if self.step < 1_000_000_000 { (1e6, "million") } else { (1e9, "billion") };
                let (batch, step) = (self.batch, self.step as f64 / unit);
                write!(
                    f,
                    "step of {batch} images: {step:.1} {name} multiply-adds, {saving:.1} times fewer than with nothing stored or shared"
                )
            }
            None => write!(f, "step of {} images: no tower runs", self.batch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FRESH_VIEWS, STORE_BYTES, stored_views};
    use crate::recipe::Recipe;
    use crate::recipe_layers::RecipeLayers;

    #[test]
    fn views_that_stand_for_fresh_ones_are_as_many_as_there_is_room_for() {
        let recipe = |views: &str| -> Recipe {
            let mut layers = RecipeLayers::preset("coop", false).expect("a method");
            layers.set(views).expect("sets");
            layers.finish().expect("finishes")
        };
        let fresh = recipe("views=0");
        let of = |epochs: usize, view_bytes: usize| stored_views(&fresh, epochs, false, view_bytes);
        assert_eq!([of(0, 1 << 20), of(6, 1 << 20), of(900, 1 << 20)], [1, 6, FRESH_VIEWS]);
        // Beyond the bound fewer views, and one where not even that has room.
        assert_eq!([of(900, STORE_BYTES / 4), of(2, STORE_BYTES / 4), of(900, STORE_BYTES * 3)], [4, 2, 1]);
        assert_eq!(of(900, 0), FRESH_VIEWS);
        // What is fixed is what was asked for; a features file has one.
        assert_eq!(stored_views(&recipe("views=40"), 6, false, STORE_BYTES), 40);
        assert_eq!(stored_views(&fresh, 6, true, 1), 1);
    }
}
