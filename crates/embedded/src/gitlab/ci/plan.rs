//! Which jobs make the pipeline, and whether what they ask of each other can be had.

use std::collections::{BTreeMap, HashMap};

use super::job::{Draft, Drafts};
use super::keyword::did_you_mean;
use super::mistakes::{At, Mistakes};
use super::rules::decide;
use super::values::override_variables;
use super::{AllowFailure, Context, Job, Need, Pipeline, When};

/// `None` if there is a mistake, here or before.
pub(super) fn plan(drafts: Drafts, context: &Context, mistakes: &mut Mistakes) -> Option<Pipeline> {
    let Drafts { stages, jobs: drafts } = drafts;
    let names = Names::of(&drafts);
    check_stages(&drafts, &stages, mistakes);
    check_references(&drafts, &names, &stages, mistakes);
    check_cycles(&drafts, &names, mistakes);
    if drafts.is_empty() {
        mistakes.add(At { file: 0, line: 1 }, "there is no job in this file");
    }
    if !mistakes.is_empty() {
        return None;
    }
    let decided: Vec<Option<Job>> = drafts.iter().map(|draft| decided(draft, &context.variables)).collect();
    let jobs: Vec<Job> = drafts
        .iter()
        .zip(&decided)
        .filter_map(|(draft, job)| Some(linked(draft, job.clone()?, &names, &decided, mistakes)))
        .collect();
    if jobs.is_empty() {
        mistakes.add(At { file: 0, line: 1 }, "no job is left: the `rules` exclude every one of them");
    } else if jobs.iter().all(|job| job.stage == stages[0] || Some(&job.stage) == stages.last()) {
        mistakes.add(
            At { file: 0, line: 1 },
            "the pipeline has only jobs in `.pre` or `.post`, so GitLab does not start it",
        );
    }
    Some(Pipeline { stages, jobs })
}

/// Where in the drafts a name leads: all copies of a job, or one of them.
struct Names<'a>(HashMap<&'a str, Vec<usize>>);

impl<'a> Names<'a> {
    fn of(drafts: &'a [Draft]) -> Self {
        let mut names: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, draft) in drafts.iter().enumerate() {
            names.entry(&draft.base).or_default().push(index);
            if draft.job.name != draft.base {
                names.entry(&draft.job.name).or_default().push(index);
            }
        }
        Self(names)
    }

    fn get(&self, name: &str) -> &[usize] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    fn hint(&self, name: &str) -> String {
        let mut names: Vec<&str> = self.0.keys().copied().collect();
        names.sort_unstable();
        did_you_mean(name, names)
    }
}

fn check_stages(drafts: &[Draft], stages: &[String], mistakes: &mut Mistakes) {
    for draft in drafts.iter().filter(|draft| !stages.contains(&draft.job.stage)) {
        let stage = &draft.job.stage;
        let hint = match did_you_mean(stage, stages.iter().map(String::as_str)) {
            hint if hint.is_empty() => format!("; there are {}", stages.join(", ")),
            hint => hint,
        };
        mistakes.add(draft.stage_at, format!("the job `{}` is in the unknown stage `{stage}`{hint}", draft.base));
    }
}

fn check_references(drafts: &[Draft], names: &Names, stages: &[String], mistakes: &mut Mistakes) {
    let position = |draft: &Draft| stages.iter().position(|stage| *stage == draft.job.stage);
    for draft in drafts {
        let needs = draft.needs.iter().flatten().map(|(need, at)| (&need.job, *at, "needs", need.optional));
        let dependencies = draft.dependencies.iter().flatten().map(|(name, at)| (name, *at, "depends on", false));
        for (name, at, verb, optional) in needs.chain(dependencies) {
            let base = &draft.base;
            match names.get(name).first() {
                None if optional => {}
                None => mistakes.add(at, format!("`{base}` {verb} the unknown job `{name}`{}", names.hint(name))),
                Some(&other) if drafts[other].base == *base => {
                    mistakes.add(at, format!("`{base}` {verb} itself"));
                }
                Some(&other) if position(&drafts[other]) > position(draft) => {
                    mistakes.add(at, format!("`{base}` {verb} `{name}`, which is in a later stage"));
                }
                Some(_) => {}
            }
        }
        let Some(needs) = &draft.needs else { continue };
        for (name, at) in draft.dependencies.iter().flatten() {
            let needed = needs.iter().any(|(need, _)| {
                need.job == *name || names.get(&need.job).iter().any(|index| names.get(name).contains(index))
            });
            if !needed {
                mistakes
                    .add(*at, format!("`{}` has `needs`, so its dependency `{name}` must be one of them", draft.base));
            }
        }
    }
}

/// Reports each cycle of needs once, at the need that closes it.
fn check_cycles(drafts: &[Draft], names: &Names, mistakes: &mut Mistakes) {
    // Copies of a job have the same needs, so one of them stands for all.
    let mut settled = vec![false; drafts.len()];
    for start in 0..drafts.len() {
        // (job, which of its needs comes next): a stack of our own, because chains can be long.
        let mut path: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some((job, next)) = path.last_mut() {
            let needs = drafts[*job].needs.as_deref().unwrap_or_default();
            if settled[*job] || *next >= needs.len() {
                settled[*job] = true;
                path.pop();
                continue;
            }
            let (need, at) = &needs[*next];
            *next += 1;
            let Some(&other) = names.get(&need.job).first() else { continue };
            let Some(from) = path.iter().position(|(job, _)| drafts[*job].base == drafts[other].base) else {
                path.push((other, 0));
                continue;
            };
            // A job that needs itself has been reported.
            if path.len() - from > 1 {
                let mut names: Vec<&str> = path[from..].iter().map(|(job, _)| drafts[*job].base.as_str()).collect();
                names.push(&drafts[other].base);
                mistakes.add(*at, format!("these jobs wait for each other: {}", names.join(" → ")));
            }
        }
    }
}

/// The job as its rules make it; `None` if it is not in the pipeline.
fn decided(draft: &Draft, predefined: &BTreeMap<String, String>) -> Option<Job> {
    let mut job = draft.job.clone();
    let mut when = draft.when.unwrap_or_default();
    // A person who is asked to start a job is not meant to block the pipeline, unless a rule made the job manual.
    let unsaid = if draft.when == Some(When::Manual) { AllowFailure::Yes } else { AllowFailure::No };
    let mut allow_failure = draft.allow_failure.clone().unwrap_or(unsaid);
    if let Some(rules) = &draft.rules {
        let mut variables = predefined.clone();
        variables.extend(job.variables.iter().map(|variable| (variable.key.clone(), variable.value.clone())));
        let rule = decide(rules, &variables)?;
        when = rule.when.unwrap_or(when);
        if let Some(allowed) = rule.allow_failure {
            allow_failure = if allowed { AllowFailure::Yes } else { AllowFailure::No };
        }
        override_variables(&mut job.variables, &rule.variables);
    }
    (when != When::Never).then_some(Job { when, allow_failure, ..job })
}

/// The job with the names of those it asks for, each of them in the pipeline.
fn linked(draft: &Draft, mut job: Job, names: &Names, decided: &[Option<Job>], mistakes: &mut Mistakes) -> Job {
    let present = |name: &str| -> Vec<String> {
        names.get(name).iter().filter_map(|index| decided[*index].as_ref()).map(|job| job.name.clone()).collect()
    };
    // A job that the rules left out has no artifacts, which is all that a dependency asks for.
    job.dependencies = draft
        .dependencies
        .as_ref()
        .map(|dependencies| dependencies.iter().flat_map(|(name, _)| present(name)).collect());
    job.needs =
        draft.needs.as_ref().map(|needs| {
            let mut found: Vec<Need> = Vec::new();
            for (need, at) in needs {
                let present = present(&need.job);
                if present.is_empty() && !need.optional {
                    mistakes.add(*at, format!(
                    "`{}` needs `{}`, which the `rules` left out; a need that may be missing is `optional: true`",
                    draft.base, need.job
                ));
                }
                found.extend(present.into_iter().map(|job| Need { job, ..need.clone() }));
            }
            found
        });
    job
}
