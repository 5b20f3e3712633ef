//! Where a launch asks for its task: with which capacity providers, in which subnets, and where next.

use super::config::{CapacityProvider, FargateConfig};

/// Where one RunTask asks for the task.
#[derive(Debug, PartialEq, Eq)]
pub struct Placement<'a> {
    /// Empty is on-demand Fargate.
    pub providers: &'a [CapacityProvider],
    pub subnets: &'a [String],
}

/// The provider strategies in the order in which they are tried: the whole list first, then each provider alone,
/// since a strategy of several splits by weight and is no fallback (facts 6).
pub fn choices(config: &FargateConfig) -> Vec<Vec<CapacityProvider>> {
    let providers = &config.capacity_providers;
    let used = |provider: &CapacityProvider| provider.weight > 0 || provider.base > 0;
    let only_one_is_used = providers.iter().filter(|provider| used(provider)).count() == 1;
    let alone = providers
        .iter()
        .filter(|provider| !(only_one_is_used && used(provider)))
        .map(|provider| vec![CapacityProvider { weight: 1, base: 0, ..provider.clone() }]);
    std::iter::once(providers.clone()).chain(alone).collect()
}

/// The placement after `refusals` of them: first all subnets at once, so that ECS chooses, then zone by zone.
pub fn placement<'a>(choices: &'a [Vec<CapacityProvider>], subnets: &'a [String], refusals: usize) -> Placement<'a> {
    let round = refusals / choices.len();
    let subnets = match round % (subnets.len() + 1) {
        0 => subnets,
        number => std::slice::from_ref(&subnets[number - 1]),
    };
    Placement { providers: &choices[refusals % choices.len()], subnets }
}

/// For the job's log.
pub fn name_of(choice: &[CapacityProvider]) -> String {
    let used: Vec<&str> =
        choice.iter().filter(|provider| provider.weight > 0).map(|provider| provider.name.as_str()).collect();
    if used.is_empty() { "FARGATE".into() } else { used.join(" and ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(name: &str, weight: u16) -> CapacityProvider {
        CapacityProvider { name: name.into(), weight, base: 0 }
    }

    fn config(providers: Vec<CapacityProvider>) -> FargateConfig {
        FargateConfig { capacity_providers: providers, ..FargateConfig::default() }
    }

    fn names(choices: &[Vec<CapacityProvider>]) -> Vec<String> {
        choices.iter().map(|choice| name_of(choice)).collect()
    }

    #[test]
    fn a_weight_of_zero_is_a_fallback_only() {
        assert_eq!(names(&choices(&config(vec![]))), ["FARGATE"]);
        assert_eq!(names(&choices(&config(vec![provider("FARGATE_SPOT", 1)]))), ["FARGATE_SPOT"]);
        let fallback = config(vec![provider("FARGATE_SPOT", 1), provider("FARGATE", 0)]);
        assert_eq!(names(&choices(&fallback)), ["FARGATE_SPOT", "FARGATE"]);
        let split = config(vec![provider("FARGATE_SPOT", 3), provider("FARGATE", 1)]);
        assert_eq!(names(&choices(&split)), ["FARGATE_SPOT and FARGATE", "FARGATE_SPOT", "FARGATE"]);
    }

    #[test]
    fn after_all_providers_it_is_asked_zone_by_zone() {
        let choices = choices(&config(vec![provider("FARGATE_SPOT", 1), provider("FARGATE", 0)]));
        let subnets = ["a".to_owned(), "b".to_owned()];
        let asked: Vec<_> = (0..7).map(|number| placement(&choices, &subnets, number).subnets.join("+")).collect();
        assert_eq!(asked, ["a+b", "a+b", "a", "a", "b", "b", "a+b"]);
    }
}
