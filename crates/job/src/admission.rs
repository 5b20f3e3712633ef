//! What is looked at, and made of, a job before anything is done for it (protocol 2.9, 3.8, 3.16, 7.1.1).

use serde_json::Value as Json;

use crate::flags::Flags;
use crate::inputs;
use crate::outcome::{Outcome, SystemFailure};
use crate::payload::{Image, Payload, Received};

/// The keys that `executor_opts` may have; any other would be a wish that nobody hears.
const EXECUTOR_OPTIONS: [(&str, &str, &[&str]); 3] = [
    ("", "executor_opts", &["docker", "kubernetes"]),
    ("/docker", "docker executor", &["platform", "user"]),
    ("/kubernetes", "kubernetes executor", &["user"]),
];

/// The job as it is to be run: its inputs expanded, its `run` as a script. `None`: as it came. Fails with the outcome of
/// a job that must not be run.
pub fn admit(received: &Received, flags: &Flags) -> Result<Option<Received>, Outcome> {
    let payload = &received.payload;
    let mut complaints: Vec<String> =
        payload.image.iter().chain(&payload.services).flat_map(unsupported_options).collect();
    let run = match steps_to_run(payload) {
        Ok(run) => run,
        Err(complaint) => {
            complaints.push(complaint);
            None
        }
    };
    if !complaints.is_empty() {
        let failure = SystemFailure::UnsupportedOptions;
        return Err(Outcome::SystemFailed { failure, message: complaints.join("\n") });
    }
    let expands = !payload.inputs.is_empty() && flags.on("FF_ENABLE_JOB_INPUTS_INTERPOLATION");
    if run.is_none() && !expands {
        return Ok(None);
    }
    let unreadable = |error: &dyn std::fmt::Display| Outcome::system(format!("the job cannot be rewritten: {error}"));
    let mut json: Json = serde_json::from_str(received.text.get()).map_err(|error| unreadable(&error))?;
    if !json.is_object() {
        return Err(unreadable(&"it is no object"));
    }
    if let Some(run) = run {
        run_as_script(&mut json, &run);
    }
    if expands {
        inputs::expand(&payload.inputs, &mut json).map_err(|error| Outcome::SystemFailed {
            failure: SystemFailure::Configuration,
            message: error.to_string(),
        })?;
    }
    Received::parse(json.to_string().as_bytes()).map(Some).map_err(|error| unreadable(&error))
}

fn unsupported_options(image: &Image) -> Vec<String> {
    let mut complaints = Vec::new();
    for (place, of, supported) in EXECUTOR_OPTIONS {
        let Some(Json::Object(options)) = image.executor_opts.pointer(place) else { continue };
        let unknown: Vec<_> = options.keys().map(String::as_str).filter(|key| !supported.contains(key)).collect();
        if !unknown.is_empty() {
            let (unknown, supported) = (unknown.join(" "), supported.join(" "));
            complaints.push(format!(
                "Unsupported \"image\" options [{unknown}] for {of:?}; supported options are [{supported}]"
            ));
        }
    }
    complaints
}

/// The content of `run`, if the job has one.
fn steps_to_run(payload: &Payload) -> Result<Option<Json>, String> {
    let text = match &payload.run {
        None | Some(Json::Null) => return Ok(None),
        Some(Json::String(text)) if text.is_empty() => return Ok(None),
        Some(Json::String(text)) => text,
        Some(_) => return Err("the `run` keyword is not the text of a list of steps".into()),
    };
    let steps: Json = serde_json::from_str(text).map_err(|_| "the `run` keyword is not the text of a list of steps")?;
    if steps.as_array().is_none_or(Vec::is_empty) {
        return Ok(None);
    }
    if payload.steps.iter().any(|step| !step.script.is_empty()) {
        return Err("the `run` and `script` keywords cannot be used together".into());
    }
    if payload.variable("STEPS").is_some_and(|value| !value.is_empty()) {
        return Err("the `run` keyword requires the exclusive use of the variable STEPS".into());
    }
    Ok(Some(steps))
}

/// GitLab's own way for executors that do not run steps themselves: the image's program reads them from a variable.
fn run_as_script(json: &mut Json, steps: &Json) {
    let variable = serde_json::json!({"key": "STEPS", "value": steps.to_string(), "raw": true});
    match json["variables"].as_array_mut() {
        Some(variables) => variables.push(variable),
        None => json["variables"] = Json::Array(vec![variable]),
    }
    json["steps"] = serde_json::json!([{"name": "script", "script": ["step-runner ci"]}]);
    json["run"] = Json::Null;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::variables::tests::runner;

    fn admit(mut fields: Json) -> Result<Option<Received>, Outcome> {
        fields["id"] = json!(1);
        let received = Received::parse(fields.to_string().as_bytes()).expect("a payload");
        super::admit(&received, &Flags::resolve(&received.payload, &runner()))
    }

    fn refusal(fields: Json) -> (SystemFailure, String) {
        match admit(fields) {
            Err(Outcome::SystemFailed { failure, message }) => (failure, message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_ordinary_job_is_left_as_it_came() {
        for fields in [
            json!({}),
            json!({"run": null, "inputs": [], "steps": [{"name": "script", "script": ["${{ job.inputs.x }}"]}]}),
            json!({"run": "", "image": {"name": "x", "executor_opts": {"docker": {"user": 1, "platform": "linux/arm64"}}}}),
            json!({"run": "[]", "image": {"executor_opts": null}, "services": [{"executor_opts": {"kubernetes": {"user": "1"}}}]}),
        ] {
            assert!(matches!(admit(fields), Ok(None)));
        }
    }

    #[test]
    fn a_job_that_is_a_list_is_no_reason_to_break_down() {
        // Serde reads the fields of a struct from a list too: the eighth are the inputs.
        let text = r#"[1,"t",true,{},{},{},[{"key":"a","value":{"type":"string","content":"b"}}],[],[],null,[],[],[],[],{},{},[],null,{}]"#;
        let received = Received::parse(text.as_bytes()).expect("a payload");
        assert_eq!(received.payload.inputs.len(), 1);
        let refused = super::admit(&received, &Flags::resolve(&received.payload, &runner()));
        assert!(matches!(refused, Err(Outcome::SystemFailed { failure: SystemFailure::Runner, .. })));
    }

    #[test]
    fn inputs_are_expanded_unless_the_flag_is_off() {
        let job = |flag: &str| {
            json!({
                "inputs": [{"key": "x", "value": {"type": "string", "content": "y"}}],
                "steps": [{"name": "script", "script": ["${{ job.inputs.x }}"]}],
                "variables": [{"key": "FF_ENABLE_JOB_INPUTS_INTERPOLATION", "value": flag}],
            })
        };
        let admitted = admit(job("")).expect("a job").expect("a rewritten one");
        assert_eq!(admitted.payload.steps[0].script, ["y"]);
        assert!(admitted.text.get().contains(r#""script":["y"]"#));
        assert!(matches!(admit(job("false")), Ok(None)));
    }

    #[test]
    fn an_input_that_cannot_be_expanded_is_a_wrong_configuration() {
        let fields = json!({
            "inputs": [{"key": "x", "value": {"type": "string", "content": "y"}}],
            "image": {"name": "${{ job.inputs.z }}"},
        });
        let told = "failed to interpolate job inputs: there is no `z` in job.inputs";
        assert_eq!(refusal(fields), (SystemFailure::Configuration, told.into()));
    }

    #[test]
    fn run_becomes_a_call_of_the_images_step_runner() {
        let steps = r#"[{"name":"hi","step":"./hi","inputs":{"a":"$B"}}]"#;
        let admitted =
            admit(json!({"run": steps, "variables": null, "steps": null})).expect("a job").expect("a new one");
        let payload = admitted.payload;
        assert_eq!(payload.steps[0].script, ["step-runner ci"]);
        let variable = &payload.variables[0];
        assert!(variable.raw && variable.key == "STEPS");
        let same: Json = serde_json::from_str(&variable.value).expect("JSON");
        assert_eq!(same, serde_json::from_str::<Json>(steps).expect("JSON"));
        assert!(payload.run.is_none_or(|run| run.is_null()));
    }

    #[test]
    fn run_goes_with_no_script_and_no_variable_of_its_name() {
        let run = r#"[{"name":"hi","step":"./hi"}]"#;
        for (fields, told) in [
            (
                json!({"run": run, "steps": [{"name": "script", "script": ["x"]}]}),
                "the `run` and `script` keywords cannot be used together",
            ),
            (
                json!({"run": run, "variables": [{"key": "STEPS", "value": "x"}]}),
                "the `run` keyword requires the exclusive use of the variable STEPS",
            ),
            (json!({"run": "no JSON"}), "the `run` keyword is not the text of a list of steps"),
        ] {
            assert_eq!(refusal(fields), (SystemFailure::UnsupportedOptions, told.into()));
        }
    }

    #[test]
    fn executor_options_that_nobody_knows_are_refused_all_at_once() {
        let fields = json!({
            "image": {"executor_opts": {"docker": {"user": "1", "memory": "1g"}, "podman": {}}},
            "services": [{"executor_opts": {"kubernetes": {"platform": "x"}}}],
        });
        let told = [
            r#"Unsupported "image" options [podman] for "executor_opts"; supported options are [docker kubernetes]"#,
            r#"Unsupported "image" options [memory] for "docker executor"; supported options are [platform user]"#,
            r#"Unsupported "image" options [platform] for "kubernetes executor"; supported options are [user]"#,
        ];
        assert_eq!(refusal(fields), (SystemFailure::UnsupportedOptions, told.join("\n")));
    }
}
