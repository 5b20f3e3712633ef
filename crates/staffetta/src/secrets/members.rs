//! The members of an entry of `secrets`, read as leniently as the rest of a payload.

use serde_json::Value;

pub(super) struct Members<'a> {
    value: &'a Value,
    expand: &'a dyn Fn(&str) -> String,
}

impl<'a> Members<'a> {
    /// Variables of the job in the members are expanded: a JWT usually arrives as the name of its variable.
    pub fn expanded(value: &'a Value, expand: &'a dyn Fn(&str) -> String) -> Self {
        Self { value, expand }
    }

    /// For what GitLab itself made: a `$` in it is a `$`.
    pub fn as_sent(value: &'a Value) -> Self {
        Self { value, expand: &str::to_owned }
    }

    /// The text at a JSON pointer; empty where there is none.
    pub fn text(&self, pointer: &str) -> String {
        match self.value.pointer(pointer) {
            Some(Value::String(text)) => self.expand(text),
            Some(other @ (Value::Number(_) | Value::Bool(_))) => other.to_string(),
            None | Some(Value::Null | Value::Array(_) | Value::Object(_)) => String::new(),
        }
    }

    /// The first of several texts that is not empty.
    pub fn first(&self, pointers: &[&str]) -> Option<String> {
        pointers.iter().map(|pointer| self.text(pointer)).find(|text| !text.is_empty())
    }

    pub fn expand(&self, text: &str) -> String {
        (self.expand)(text)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// As the variables of a job expand, with a JWT and a few usual ones.
    pub fn expand(text: &str) -> String {
        [
            ("$ID_TOKEN", "the.jwt"),
            ("$ENVIRONMENT", "prod"),
            ("${CI_JOB_ID}", "7"),
            ("${CI_PROJECT_ID}", "11"),
            ("${CI_SERVER_HOST}", "gitlab.example.com"),
            ("$NO_SUCH_TOKEN", ""),
        ]
        .iter()
        .fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    #[test]
    fn members_are_found_expanded_and_may_be_missing() {
        let value = json!({"path": "$ENVIRONMENT/db", "server": {"url": null, "port": 8200}, "list": [1]});
        let members = Members::expanded(&value, &expand);
        for (pointer, text) in
            [("/path", "prod/db"), ("/server/url", ""), ("/server/port", "8200"), ("/list", ""), ("/none/at/all", "")]
        {
            assert_eq!(members.text(pointer), text, "{pointer}");
        }
        assert_eq!(members.first(&["/server/url", "/path"]).as_deref(), Some("prod/db"));
        assert_eq!(Members::as_sent(&value).text("/path"), "$ENVIRONMENT/db");
    }
}
