//! The payload's `secrets`: what the job asks for, and the provider's server as the project's variables name it [S].

use serde_json::{Map, Value, json};

use super::ci::{self, IdToken};
use super::config::Config;
use super::variables::{self, Entry};

/// `sign` makes a token for the job.
pub(super) fn of_job(
    job: &ci::Job,
    config: &Config,
    entries: &[Entry],
    sign: impl Fn(&IdToken) -> String,
) -> Map<String, Value> {
    let value = |key: &str| variables::value(entries, key).map_or(Value::Null, Value::from);
    let mut secrets = Map::new();
    for secret in &job.secrets {
        // The runner puts the token in the place of the variable.
        let first_token = || job.id_tokens.first().map(|token| format!("${}", token.name));
        let jwt = json!(secret.token.clone().or_else(first_token));
        let server = match secret.provider {
            "vault" => json!({
                "url": value("VAULT_SERVER_URL"),
                "namespace": value("VAULT_NAMESPACE"),
                "auth": {
                    "name": "jwt",
                    "path": variables::value(entries, "VAULT_AUTH_PATH").unwrap_or("jwt"),
                    "data": { "jwt": jwt, "role": value("VAULT_AUTH_ROLE") },
                },
            }),
            "aws_secrets_manager" => json!({
                "region": value("AWS_REGION"),
                "jwt": jwt,
                "role_arn": value("AWS_ROLE_ARN"),
                "role_session_name": value("AWS_ROLE_SESSION_NAME"),
            }),
            "gcp_secret_manager" => json!({
                "project_number": value("GCP_PROJECT_NUMBER"),
                "workload_identity_federation_pool_id": value("GCP_WORKLOAD_IDENTITY_FEDERATION_POOL_ID"),
                "workload_identity_federation_provider_id": value("GCP_WORKLOAD_IDENTITY_FEDERATION_PROVIDER_ID"),
                "jwt": jwt,
            }),
            "azure_key_vault" => json!({
                "url": value("AZURE_KEY_VAULT_SERVER_URL"),
                "client_id": value("AZURE_CLIENT_ID"),
                "tenant_id": value("AZURE_TENANT_ID"),
                "jwt": jwt,
            }),
            _ => Value::Null,
        };
        let mut entry = match secret.provider {
            "gitlab_secrets_manager" => json!({ secret.provider: of_gitlab(secret, config, &sign) }),
            provider => {
                let mut asked = secret.asked.clone();
                asked["server"] = server;
                json!({ provider: asked })
            }
        };
        if let Some(file) = secret.file {
            entry["file"] = json!(file);
        }
        secrets.insert(secret.name.clone(), entry);
    }
    secrets
}

/// GitLab's own manager is an OpenBao beside it; its job gives the secret's name only. GitLab signs the token itself, since the
/// runner expands nothing here.
fn of_gitlab(secret: &ci::Secret, config: &Config, sign: impl Fn(&IdToken) -> String) -> Value {
    let audiences = config.secrets_manager_url.clone().into_iter().collect();
    let jwt = sign(&IdToken { name: String::new(), audiences });
    json!({
        "server": {
            "url": config.secrets_manager_url,
            "inline_auth": { "path": "auth/pipeline_jwt/login", "auth_mount": "pipeline_jwt", "role": "all_pipelines", "jwt": jwt },
        },
        "engine": { "name": "kv-v2", "path": "secrets/kv" },
        "path": format!("explicit/{}", secret.asked["name"].as_str().unwrap_or_default()),
        "field": "value",
    })
}
