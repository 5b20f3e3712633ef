//! The managers that a deployment had before somebody changed how it is managed: their names follow from the file too.

use super::deployment::{Deployment, ManagerMode, Place};
use super::stacks::{Stack, StackKind, stacks};

/// The managers' stacks of every other value of `manager`. A shared manager is looked for where the environments are: where
/// else it may have been, the file no longer says.
pub fn other_managers(deployment: &Deployment) -> Vec<Stack> {
    let mut modes = Vec::new();
    if !matches!(deployment.manager, ManagerMode::Each) {
        modes.push(ManagerMode::Each);
    }
    if !matches!(deployment.manager, ManagerMode::Shared(_)) {
        let mut places: Vec<&Place> = Vec::new();
        for environment in &deployment.environments {
            let place = &environment.place;
            if !places.iter().any(|known| (&known.account, &known.region) == (&place.account, &place.region)) {
                places.push(place);
            }
        }
        modes.extend(places.into_iter().cloned().map(ManagerMode::Shared));
    }
    let of_mode = |manager| stacks(&Deployment { manager, ..deployment.clone() }, &|_, _| String::new());
    let all = modes.into_iter().flat_map(of_mode);
    all.filter(|stack| !matches!(stack.kind, StackKind::Environment(_))).collect()
}
