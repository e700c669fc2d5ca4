//! One `lora` for each experience, summed: what O-LoRA and InfLoRA share.
//!
//! In experience `t` the frozen weight is `W + s sum_{i<t} A_i B_i`, held still in one `lora` of rank `t rank` that
//! stands first, and a fresh `lora` of the recipe's rank is trained behind it. What answers is one `lora`, which holds
//! all factors side by side. The rank grows with the experiences and nothing has to know how many there will be.
//!
//! The recipe's method is `lora`, or a stack with one `lora` in it, whose other members, such as class rows, are
//! trained on from experience to experience.

use std::collections::BTreeMap;

use inarch_core::backbone::HostTensor;
use inarch_peft::{Adapter, LoraConfig, LoraInit, MethodConfig, Parameters, SitePattern, stacked};
use inarch_recipes::{Recipe, Session};

use super::needs::Need;
use super::{Beginning, Episode, Outcome};
use crate::error::{Error, Result};

/// A method and its adapter.
pub(super) type Part = (MethodConfig, Adapter);

/// The updates of all experiences before.
pub(super) struct Branches {
    need: Need,
    /// Their factors side by side, under the paths of a `lora`.
    past: Parameters,
    experiences: usize,
}

/// Whose a parameter of the method in training is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owner<'p> {
    /// An experience before.
    Past,
    /// The `lora` in training, with the path there.
    Branch(&'p str),
    /// Another member of the stack.
    Other,
}

/// The members of a stack, or the one adapter.
pub(super) fn parts(method: &MethodConfig, adapter: &Adapter) -> Vec<Part> {
    match (method, adapter) {
        (MethodConfig::Stack(config), Adapter::Stack(stack)) => {
            config.members.iter().cloned().zip(stack.members().iter().cloned()).collect()
        }
        _ => vec![(method.clone(), adapter.clone())],
    }
}

/// The members as a stack, or the one adapter.
pub(super) fn joined(mut parts: Vec<Part>) -> Result<Part> {
    match parts.len() {
        1 => Ok(parts.remove(0)),
        _ => Ok(stacked(parts)?),
    }
}

/// The settings of the members of a stack, or of the one adapter.
pub(super) fn members(method: &MethodConfig) -> &[MethodConfig] {
    match method {
        MethodConfig::Stack(config) => &config.members,
        one => std::slice::from_ref(one),
    }
}

/// The settings of so many updates side by side, of the same scale.
fn widened(config: &LoraConfig, count: usize) -> LoraConfig {
    let factor = if config.rank_stabilised { (count as f64).sqrt() } else { count as f64 };
    let ranks = config.rank_pattern.iter();
    let alphas = config.alpha_pattern.iter();
    LoraConfig {
        rank: config.rank * count,
        alpha: config.alpha * factor,
        init: LoraInit::Kaiming,
        rank_pattern: ranks.map(|one| SitePattern { value: one.value * count, sites: one.sites.clone() }).collect(),
        alpha_pattern: alphas.map(|one| SitePattern { value: one.value * factor, sites: one.sites.clone() }).collect(),
        ..config.clone()
    }
}

/// Factors side by side: `A` `[d_input, rank]` by columns, `B` `[rank, d_output]` by rows.
pub(super) fn beside(left: &Parameters, right: &Parameters) -> Parameters {
    let join = |(name, right): (&String, &HostTensor)| {
        let Some(left) = left.get(name) else { return (name.clone(), right.clone()) };
        let by_rows = name.ends_with(".b");
        let (one, other) = (left.shape[1], right.shape[1]);
        let (shape, data) = if by_rows {
            (vec![left.shape[0] + right.shape[0], one], [left.data.as_slice(), &right.data].concat())
        } else {
            let rows = left.data.chunks(one.max(1)).zip(right.data.chunks(other.max(1)));
            (vec![left.shape[0], one + other], rows.flat_map(|(left, right)| [left, right].concat()).collect())
        };
        (name.clone(), HostTensor { shape, data, origin: name.clone() })
    };
    right.iter().map(join).collect()
}

/// Where the one member stands that `of` takes, and what it takes of it; `None` when there is no such member, or several.
pub(super) fn only<'m, M>(
    members: impl IntoIterator<Item = &'m MethodConfig>,
    of: impl Fn(&MethodConfig) -> Option<M>,
) -> Option<(usize, M)> {
    let mut found = members.into_iter().enumerate().filter_map(|(at, method)| Some((at, of(method)?)));
    found.next().filter(|_| found.next().is_none())
}

/// Which of the members of a method is the `lora`, and its settings.
pub(super) fn lora_of(need: Need, own: &[MethodConfig]) -> Result<(usize, LoraConfig)> {
    let (at, config) = need.member::<LoraConfig>(own)?;
    from_zero(need, &config)?;
    Ok((at, config))
}

/// Whether a fresh update changes nothing.
pub(super) fn from_zero(need: Need, config: &LoraConfig) -> Result<()> {
    match config.init {
        LoraInit::Kaiming | LoraInit::Gaussian => Ok(()),
        _ => Err(need.fault("updates start from zero; `init` must be `kaiming` or `gaussian`")),
    }
}

impl Branches {
    pub(super) fn new(need: Need) -> Self {
        Self { need, past: Parameters::new(), experiences: 0 }
    }

    /// The factors of all experiences before.
    pub(super) fn past(&self) -> &Parameters {
        &self.past
    }

    /// How many experiences are over.
    pub(super) fn experiences(&self) -> usize {
        self.experiences
    }

    /// Where the `lora` in training stands among the parts of the method in training, and its settings.
    pub(super) fn branch(&self, method: &MethodConfig) -> Result<(usize, LoraConfig)> {
        let past = usize::from(self.experiences > 0);
        let (at, config) = lora_of(self.need, &members(method)[past..])?;
        Ok((at + past, config))
    }

    /// Whose a parameter of the method in training is, by its path.
    pub(super) fn owner<'p>(&self, method: &MethodConfig, parameter: &'p str) -> Owner<'p> {
        let Ok((branch, _)) = self.branch(method) else { return Owner::Other };
        if !matches!(method, MethodConfig::Stack(_)) {
            return Owner::Branch(parameter);
        }
        // `members.<i>.<variant>.<path of the member>`.
        let mut steps = parameter.splitn(4, '.').skip(1);
        let (index, own) = (steps.next().and_then(|index| index.parse::<usize>().ok()), steps.nth(1));
        match (index, own) {
            (Some(0), _) if self.experiences > 0 => Owner::Past,
            (Some(index), Some(own)) if index == branch => Owner::Branch(own),
            _ => Owner::Other,
        }
    }

    /// What a training starts from: the updates before, and a fresh `lora` in place of the last one.
    pub(super) fn start(&self, beginning: &Beginning<'_>) -> Result<Part> {
        let Beginning { session, recipe, classes, grown, .. } = *beginning;
        let (at, config) = lora_of(self.need, members(&recipe.method))?;
        if self.experiences == 0 {
            return Ok((recipe.method.clone(), grown.clone()));
        }
        let mut own = parts(&recipe.method, grown);
        let fresh = session.fresh_adapter(recipe, classes)?;
        own[at] = parts(&recipe.method, &fresh).remove(at);
        let before = self.before(session, recipe, classes, &config)?;
        Ok(stacked([before].into_iter().chain(own))?)
    }

    /// Takes up the update that was trained. What answers has the sum of all in place of the last one.
    pub(super) fn close(&mut self, episode: &Episode<'_>, adapter: Adapter) -> Result<Outcome> {
        let mut own = parts(&episode.recipe.method, &adapter.without_autodiff());
        if self.experiences > 0 {
            own.remove(0);
        }
        let methods: Vec<MethodConfig> = own.iter().map(|(method, _)| method.clone()).collect();
        let (at, config) = lora_of(self.need, &methods)?;
        let (_, trained) = joined(own.clone())?;
        self.past = beside(&self.past, &own[at].1.parameters());
        self.experiences += 1;
        own[at] = self.before(episode.session, episode.recipe, episode.classes, &config)?;
        let (method, answer) = joined(own)?;
        Ok(Outcome { trained, answer, method: Some(method) })
    }

    /// The updates before as one adapter.
    fn before(&self, session: &Session<'_>, recipe: &Recipe, classes: &[String], config: &LoraConfig) -> Result<Part> {
        let method = MethodConfig::Lora(widened(config, self.experiences));
        let wide = Recipe { method: method.clone(), ..recipe.clone() };
        let device = session.backbone().device();
        let adapter = session.fresh_adapter(&wide, classes)?.with_parameters(self.past.clone(), device);
        Ok((method, adapter.map_err(|reason| Error::setting("updates before", reason))?))
    }

    /// As a strategy's state.
    pub(super) fn state(&self) -> BTreeMap<String, Parameters> {
        let count = HostTensor { shape: vec![1], data: vec![self.experiences as f32], origin: "count".into() };
        let count = Parameters::from([("count".to_string(), count)]);
        let parts = [("past", self.past.clone()), ("count", count)].map(|(name, part)| (name.to_string(), part));
        if self.experiences == 0 { BTreeMap::new() } else { parts.into() }
    }

    /// Takes up a saved state, and leaves what is not its own.
    pub(super) fn restore(&mut self, state: &mut BTreeMap<String, Parameters>) {
        self.past = state.remove("past").unwrap_or_default();
        let count = state.remove("count").and_then(|count| count.get("count")?.data.first().copied());
        self.experiences = count.unwrap_or(0.0) as usize;
    }
}

#[cfg(test)]
mod tests {
    use inarch_core::backbone::HostTensor;
    use inarch_peft::{LoraConfig, MethodConfig, Parameters};

    use super::super::needs::O_LORA;
    use super::{Branches, Owner, beside, widened};

    fn factors(a: &[f32], b: &[f32], rank: usize) -> Parameters {
        let tensor = |name: &str, shape: Vec<usize>, data: &[f32]| {
            (name.to_string(), HostTensor { shape, data: data.to_vec(), origin: name.into() })
        };
        let shapes = [vec![a.len() / rank, rank], vec![rank, b.len() / rank]];
        let [left, right] = shapes;
        Parameters::from([tensor("sites.x.a", left, a), tensor("sites.x.b", right, b)])
    }

    fn product(factors: &Parameters) -> Vec<f32> {
        let (a, b) = (&factors["sites.x.a"], &factors["sites.x.b"]);
        let (rows, rank, columns) = (a.shape[0], a.shape[1], b.shape[1]);
        let entry = |at: usize| {
            let (row, column) = (at / columns, at % columns);
            (0..rank).map(|k| a.data[row * rank + k] * b.data[k * columns + column]).sum()
        };
        (0..rows * columns).map(entry).collect()
    }

    #[test]
    fn factors_side_by_side_are_the_sum_of_the_updates() {
        let one = factors(&[1.0, 2.0, 3.0], &[4.0, 5.0], 1);
        let other = factors(&[0.5, -1.0, 2.0, 0.0, 1.0, 1.0], &[1.0, 2.0, -3.0, 0.25], 2);
        let both = beside(&beside(&Parameters::new(), &one), &other);
        assert_eq!(
            (both["sites.x.a"].shape.as_slice(), both["sites.x.b"].shape.as_slice()),
            (&[3, 3][..], &[3, 2][..])
        );
        let sum: Vec<f32> = product(&one).iter().zip(product(&other)).map(|(one, other)| one + other).collect();
        assert_eq!(product(&both), sum);
        for rank_stabilised in [true, false] {
            let config = LoraConfig { rank: 3, alpha: 1.7, rank_stabilised, ..LoraConfig::default() };
            let wide = widened(&config, 5);
            assert_eq!(wide.rank, 15);
            assert!((wide.scale() - config.scale()).abs() < 1e-12);
        }
    }

    #[test]
    fn parameters_have_owners() {
        let [lora, stack] = ["lora", "stack"].map(|name| MethodConfig::preset(name).expect("a method"));
        let mut branches = Branches::new(O_LORA);
        let path = "sites.image.blocks.0.q_proj.a";
        assert_eq!(branches.owner(&lora, path), Owner::Branch(path));
        assert_eq!(branches.owner(&stack, &format!("members.0.Lora.{path}")), Owner::Branch(path));
        assert_eq!(branches.owner(&stack, "members.1.LinearProbe.prototypes"), Owner::Other);
        branches.experiences = 1;
        let MethodConfig::Stack(mut config) = stack else { panic!("a stack") };
        config.members.insert(0, lora);
        let stack = MethodConfig::Stack(config);
        assert_eq!(branches.owner(&stack, &format!("members.0.Lora.{path}")), Owner::Past);
        assert_eq!(branches.owner(&stack, &format!("members.1.Lora.{path}")), Owner::Branch(path));
        assert_eq!(branches.owner(&stack, "members.2.LinearProbe.prototypes"), Owner::Other);
    }
}
