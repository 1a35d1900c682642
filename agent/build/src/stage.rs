//! Which stages a build needs, and what the names in `FROM` and `--from` mean.

use std::collections::BTreeSet;

use crate::dockerfile::{Action, Dockerfile};
use crate::error::{BuildError, Result};

/// What a stage begins with, or a COPY copies from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Base {
    /// Nothing at all.
    Scratch,
    /// An earlier stage, by its place.
    Stage(usize),
    /// An image, by its name.
    Image(String),
}

/// What a name in the `FROM` of stage `at` means.
pub(crate) fn from(file: &Dockerfile, at: usize, name: &str) -> Base {
    match named(file, at, name) {
        Some(stage) => Base::Stage(stage),
        None if name == "scratch" => Base::Scratch,
        None => Base::Image(name.to_owned()),
    }
}

/// What a name or number in a `--from` within stage `at` means.
pub(crate) fn copied_from(file: &Dockerfile, at: usize, name: &str) -> Result<Base, String> {
    if let Some(stage) = named(file, at, name) {
        return Ok(Base::Stage(stage));
    }
    match name.parse::<usize>() {
        Ok(number) if number < at => Ok(Base::Stage(number)),
        Ok(number) => {
            Err(format!("--from={number}: only the stages 0 to {} come before this one", at.saturating_sub(1)))
        }
        Err(_) if name == "scratch" => Err("--from=scratch: there is nothing in it".into()),
        Err(_) => Ok(Base::Image(name.to_owned())),
    }
}

fn named(file: &Dockerfile, before: usize, name: &str) -> Option<usize> {
    let name = name.to_lowercase();
    file.stages[..before].iter().rposition(|stage| stage.name.as_deref() == Some(&name))
}

/// The stage that is asked for: by name or number; "" is the last.
///
/// # Errors
/// [`BuildError::Invalid`] names those that there are.
pub(crate) fn target(file: &Dockerfile, target: &str) -> Result<usize> {
    let last = file.stages.len() - 1;
    if target.is_empty() {
        return Ok(last);
    }
    let number = target.parse::<usize>().ok().filter(|number| *number <= last);
    named(file, file.stages.len(), target).or(number).ok_or_else(|| {
        let names: Vec<&str> = file.stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
        BuildError::invalid(format!(
            "{} has no stage {target:?}; its named stages are: {}",
            file.name,
            names.join(", ")
        ))
    })
}

/// The stages that must be built for one, in order, itself the last. `bases` are what the stages begin with.
pub(crate) fn needed(file: &Dockerfile, bases: &[Base], target: usize) -> Vec<usize> {
    let mut needed = BTreeSet::from([target]);
    let mut open = vec![target];
    while let Some(at) = open.pop() {
        let mut also = Vec::new();
        if let Some(Base::Stage(stage)) = bases.get(at) {
            also.push(*stage);
        }
        for step in &file.stages[at].steps {
            if let Action::Copy(copy) = &step.action
                && let Some(Ok(Base::Stage(stage))) = copy.from.as_ref().map(|from| copied_from(file, at, from))
            {
                also.push(stage);
            }
        }
        open.extend(also.into_iter().filter(|stage| needed.insert(*stage)));
    }
    needed.into_iter().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_stages_that_are_needed_are_built() {
        let text = "FROM a AS One\nFROM b AS two\nCOPY --from=one / /\nFROM c AS unused\nRUN x\nFROM two\nCOPY --from=0 / /\nFROM scratch AS last\nCOPY --from=TWO / /\nCOPY --from=busybox / /\n";
        let file = Dockerfile::parse("D", text).unwrap();
        let bases: Vec<Base> = file.stages.iter().enumerate().map(|(at, s)| from(&file, at, &s.image)).collect();
        assert_eq!(bases[3], Base::Stage(1));
        assert_eq!(bases[4], Base::Scratch);
        assert_eq!(needed(&file, &bases, 4), [0, 1, 4]);
        assert_eq!(needed(&file, &bases, 3), [0, 1, 3]);
        assert_eq!(needed(&file, &bases, 2), [2]);
        assert_eq!((target(&file, "").unwrap(), target(&file, "Two").unwrap(), target(&file, "3").unwrap()), (4, 1, 3));
        assert!(target(&file, "nine").is_err() && target(&file, "9").is_err());
        assert!(copied_from(&file, 2, "2").is_err());
        assert_eq!(copied_from(&file, 2, "x/y").unwrap(), Base::Image("x/y".into()));
    }
}
