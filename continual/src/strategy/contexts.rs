//! The text side of S-Prompts: a context of `coop` for the classes of each experience.
//!
//! A context is trained in the experience that brings classes, and those classes keep it; what answers is a class-specific
//! `coop`, so that the text tower runs once for each class, whatever the image. Classes that have not come yet are asked for
//! with the latest context. Where an experience brings no class, the contexts stand still and the image prompts are
//! trained under them.

use inarch_core::backbone::HostTensor;
use inarch_peft::{Adapter, CoopConfig, MethodConfig, Parameters};
use inarch_recipes::{Recipe, Session};

use super::branches::{Part, only, parts};
use super::needs::S_PROMPTS;
use super::weights::replaced;
use crate::error::{Error, Result};

/// The tensors: a context `[classes * tokens, width]`, and 1 for each class that has come.
const CONTEXT: &str = "context";
const CAME: &str = "came";

/// The contexts of all classes.
#[derive(Default)]
pub(super) struct Contexts(Parameters);

/// Where the shared context stands among the members of a method.
pub(super) fn shared_in<'m>(own: impl IntoIterator<Item = &'m MethodConfig>) -> Result<(usize, CoopConfig)> {
    only(own, coop).filter(|(_, config)| !config.class_specific).ok_or_else(|| {
        S_PROMPTS.fault("with `text` it needs one `coop` in the stack, without `class_specific`; set `fit.method`")
    })
}

/// The settings of a context.
fn coop(method: &MethodConfig) -> Option<CoopConfig> {
    method.settings().cloned()
}

/// Whether a parameter, by its path, belongs to contexts that stand still.
pub(super) fn stands_still(method: &MethodConfig, parameter: &str) -> bool {
    let MethodConfig::Stack(stack) = method else { return false };
    let index = parameter.split('.').nth(1).and_then(|index| index.parse::<usize>().ok());
    matches!(index.and_then(|at| stack.members.get(at)), Some(MethodConfig::Coop(config)) if config.class_specific)
}

impl Contexts {
    fn came(&self, class: usize) -> bool {
        self.0.get(CAME).and_then(|came| came.data.get(class)).is_some_and(|came| *came > 0.0)
    }

    /// What a training begins with: a fresh context, or those that stand still. `current` says which classes arrive.
    pub(super) fn start(
        &self,
        (session, recipe): (&Session<'_>, &Recipe),
        (classes, current): (&[String], &[bool]),
        own: &mut [Part],
    ) -> Result<()> {
        let (at, config) = shared_in(own.iter().map(|(method, _)| method))?;
        let brings = current.iter().enumerate().any(|(class, arrives)| *arrives && !self.came(class));
        own[at] = match brings {
            true => parts(&recipe.method, &session.fresh_adapter(recipe, classes)?).remove(at),
            false => self.answer((session, recipe), classes, config)?,
        };
        Ok(())
    }

    /// Takes up the context that was trained, and puts those of all classes in its place. Gives the shared one that
    /// the next training is grown from.
    pub(super) fn end(
        &mut self,
        (session, recipe): (&Session<'_>, &Recipe),
        (classes, current): (&[String], &[bool]),
        own: &mut [Part],
    ) -> Result<(usize, Part)> {
        let (at, config) = only(own.iter().map(|(method, _)| method), coop)
            .ok_or_else(|| Error::setting("strategy s-prompts", "it trains a `coop` for the text side"))?;
        let shared = MethodConfig::Coop(CoopConfig { class_specific: false, ..config.clone() });
        let place = match config.class_specific {
            false => own[at].clone(),
            true => {
                let recipe = Recipe { method: shared.clone(), ..recipe.clone() };
                (shared, session.fresh_adapter(&recipe, classes)?.without_autodiff())
            }
        };
        if !config.class_specific
            && let Some(context) = own[at].1.parameters().remove(CONTEXT)
        {
            self.take_up(&context, current);
        }
        own[at] = self.answer((session, recipe), classes, config)?;
        Ok((at, place))
    }

    /// Gives a context to the classes that arrive for the first time, and to those that have not come yet.
    fn take_up(&mut self, context: &HostTensor, current: &[bool]) {
        let (tokens, width) = (context.shape[0], context.shape[1]);
        let each = context.data.len();
        let known = self.0.get(CONTEXT).map_or(&[][..], |known| known.data.as_slice());
        let of = |class: usize| match known.get(class * each..(class + 1) * each) {
            Some(own) if self.came(class) => own,
            _ => context.data.as_slice(),
        };
        let data: Vec<f32> = (0..current.len()).flat_map(of).copied().collect();
        let came = |(class, arrives): (usize, &bool)| f32::from(u8::from(*arrives || self.came(class)));
        let came: Vec<f32> = current.iter().enumerate().map(came).collect();
        let tensor = |name: &str, shape, data| (name.to_string(), HostTensor { shape, data, origin: name.into() });
        self.0 = Parameters::from([
            tensor(CONTEXT, vec![current.len() * tokens, width], data),
            tensor(CAME, vec![current.len()], came),
        ]);
    }

    /// The contexts of all classes as one adapter.
    fn answer(
        &self,
        (session, recipe): (&Session<'_>, &Recipe),
        classes: &[String],
        config: CoopConfig,
    ) -> Result<Part> {
        let method = MethodConfig::Coop(CoopConfig { class_specific: true, ..config });
        let recipe = Recipe { method: method.clone(), ..recipe.clone() };
        let fresh: Adapter = session.fresh_adapter(&recipe, classes)?;
        let mut values = fresh.parameters();
        if let (Some(all), Some(known)) = (values.get_mut(CONTEXT), self.0.get(CONTEXT)) {
            all.data.iter_mut().zip(&known.data).for_each(|(value, known)| *value = *known);
        }
        Ok((method, replaced(fresh, values)?.without_autodiff()))
    }

    pub(super) fn state(&self) -> Parameters {
        self.0.clone()
    }

    pub(super) fn restore(&mut self, state: Parameters) {
        self.0 = state;
    }
}

#[cfg(test)]
mod tests {
    use inarch_core::backbone::HostTensor;

    use super::{CONTEXT, Contexts};

    #[test]
    fn a_class_keeps_the_context_it_came_with() {
        let context = |value: f32| HostTensor { shape: vec![1, 2], data: vec![value; 2], origin: "context".into() };
        let mut contexts = Contexts::default();
        // The third class is known by name and has not come.
        contexts.take_up(&context(1.0), &[true, true, false]);
        assert_eq!(contexts.0[CONTEXT].data, [1.0; 6]);
        contexts.take_up(&context(2.0), &[false, true, true, true]);
        assert_eq!(contexts.0[CONTEXT].shape, [4, 2]);
        assert_eq!(contexts.0[CONTEXT].data, [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]);
        contexts.take_up(&context(3.0), &[false; 4]);
        assert_eq!(contexts.0[CONTEXT].data, [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]);
        let mut again = Contexts::default();
        again.restore(contexts.state());
        assert!(again.came(3) && !again.came(4));
    }
}
