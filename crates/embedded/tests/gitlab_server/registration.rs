use std::time::Duration;

use embedded::gitlab::Config;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{World, job, pipeline, send, world, world_with};

#[tokio::test]
async fn a_runner_registers_with_the_registration_token_and_with_nothing_else() {
    let world = world().await;
    let good = world.server.registration_token();
    let table: [(Value, u16, &str); 8] = [
        (json!({ "token": good, "description": "a", "tag_list": "dev, fargate", "run_untagged": false }), 201, ""),
        (json!({ "token": good, "tag_list": ["dev"] }), 201, ""),
        (json!({ "token": "GR1348941wrong" }), 403, "403 Forbidden - invalid token supplied"),
        (json!({}), 400, "token is missing"),
        (json!({ "token": 7 }), 400, "token is invalid"),
        (json!({ "token": good, "run_untagged": "perhaps" }), 400, "run_untagged is invalid"),
        (json!({ "token": good, "access_level": "all" }), 400, "access_level does not have a valid value"),
        (json!({ "token": good, "info": "linux" }), 400, "info is invalid"),
    ];
    for (body, status, message) in table {
        let answer = world.post("runners", body).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        let said = answer.body["message"].as_str().or(answer.body["error"].as_str()).unwrap_or_default();
        assert_eq!(said, message);
        if status == 201 {
            assert!(answer.body["id"].is_u64() && answer.body["token_expires_at"].is_null());
            assert_eq!(answer.body["token"].as_str().expect("a token").len(), 20);
        }
    }
}

#[tokio::test]
async fn what_gitlab_validates_of_a_runner_is_named() {
    let world = world().await;
    let token = world.server.registration_token();
    let answer = world.post("runners", json!({ "token": token, "run_untagged": false })).await;
    assert_eq!((answer.status.as_u16(), answer.body["message"]["tags_list"].is_array()), (400, true));
    let answer = world.post("runners", json!({ "token": token, "maximum_timeout": 60 })).await;
    assert_eq!((answer.status.as_u16(), answer.body["message"]["maximum_timeout"].is_array()), (400, true));
}

#[tokio::test]
async fn a_person_creates_runners_with_a_personal_access_token() {
    let world = world().await;
    let create = |body: &'static str| {
        let request =
            world.api(Method::POST, "user/runners").header("PRIVATE-TOKEN", world.server.personal_access_token());
        request.header("Content-Type", "application/x-www-form-urlencoded").body(body)
    };
    let table = [
        ("runner_type=instance_type&tag_list=dev%2Cgpu&description=two+words", 201, "glrt-t1_"),
        ("runner_type=group_type&group_id=3", 201, "glrt-t2_"),
        ("runner_type=project_type&project_id=1", 201, "glrt-t3_"),
        ("runner_type=project_type", 400, "project_id is missing"),
        ("runner_type=planet_type", 400, "runner_type does not have a valid value"),
        ("description=x", 400, "runner_type is missing"),
    ];
    for (body, status, expected) in table {
        let answer = send(create(body)).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        let said = answer.body["token"].as_str().or(answer.body["error"].as_str()).expect("a token or an error");
        assert!(said.starts_with(expected), "{body}: {said}");
    }
    let answer = world.post("user/runners", json!({ "runner_type": "instance_type" })).await;
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn a_created_runner_gets_the_jobs_of_its_tags() {
    let world = world().await;
    let request = world.api(Method::POST, "user/runners").bearer_auth(world.server.personal_access_token());
    let body = json!({ "runner_type": "instance_type", "tag_list": "dev,gpu", "run_untagged": false });
    let token = send(request.json(&body)).await.body["token"].clone();
    world.pipeline(pipeline(vec![job("untagged", "build")])).await;
    assert_eq!(world.post("jobs/request", json!({ "token": token })).await.status, 204);
    let mut tagged = job("tagged", "build");
    tagged.tags = vec!["gpu".into()];
    world.pipeline(pipeline(vec![tagged])).await;
    let answer = world.post("jobs/request", json!({ "token": token })).await;
    assert_eq!((answer.status.as_u16(), &answer.body["job_info"]["name"]), (201, &json!("tagged")));
}

#[tokio::test]
async fn verify_tells_a_known_token_from_others() {
    let world = world().await;
    let runner = world.runner(&[]);
    let answer = world.post("runners/verify", json!({ "token": runner.token, "system_id": "s_0123456789ab" })).await;
    assert_eq!((answer.status.as_u16(), &answer.body["token"]), (200, &json!(runner.token)));
    assert_eq!(world.post("runners/verify", json!({ "token": "glrt-wrong" })).await.status, 403);
    assert_eq!(world.post("runners/verify", json!({ "system_id": "s_0123456789ab" })).await.status, 400);
}

#[tokio::test]
async fn a_reset_token_replaces_the_old_one_at_once() {
    let world = world().await;
    let old = world.runner(&[]).token;
    let answer = world.post("runners/reset_authentication_token", json!({ "token": old })).await;
    assert_eq!(answer.status, 201);
    let new = answer.body["token"].as_str().expect("a token");
    assert!(new.starts_with("glrt-t1_"));
    assert_eq!(world.post("runners/verify", json!({ "token": old })).await.status, 403);
    let id = world.post("runners/verify", json!({ "token": new })).await.body["id"].clone();
    let path = format!("runners/{id}/reset_authentication_token");
    assert_eq!(send(world.api(Method::POST, &path)).await.status, 401);
    let by_person = world.api(Method::POST, &path).header("PRIVATE-TOKEN", world.server.personal_access_token());
    assert_eq!(send(by_person).await.status, 201);
    assert_eq!(world.post("runners/verify", json!({ "token": new })).await.status, 403);
}

#[tokio::test]
async fn where_registration_tokens_are_switched_off_they_are_gone() {
    let world = world_with(Config { registration_tokens: false, ..Config::default() }).await;
    let register = |token: &str| world.post("runners", json!({ "token": token, "run_untagged": true }));
    let answer = register(world.server.registration_token()).await;
    assert_eq!(answer.status, 410);
    assert_eq!(answer.body["message"], "410 Gone - runner registration disallowed");
    assert_eq!(register("GR1348941wrong").await.status, 403, "a wrong token is told first");
    assert!(world.server.runners().is_empty());
}

#[tokio::test]
async fn a_token_with_a_lifetime_says_when_it_ends_and_is_refused_then() {
    let lifetime = |seconds| Config { runner_token_lifetime: Some(Duration::from_secs(seconds)), ..Config::default() };
    let registered = |world: &World| json!({ "token": world.server.registration_token(), "run_untagged": true });
    let world = world_with(lifetime(3600)).await;
    let first = world.post("runners", registered(&world)).await.body;
    let renewed = world.post("runners/reset_authentication_token", json!({ "token": first["token"] })).await.body;
    for answer in [&first, &renewed] {
        let ends: jiff::Timestamp = answer["token_expires_at"].as_str().expect("a time").parse().expect("RFC 3339");
        let left = ends.duration_since(jiff::Timestamp::now()).as_secs();
        assert!((3500..=3600).contains(&left), "{answer}");
    }
    let world = world_with(lifetime(0)).await;
    let expired = world.post("runners", registered(&world)).await.body;
    assert_eq!(world.post("runners/verify", json!({ "token": expired["token"] })).await.status, 403);
}

#[tokio::test]
async fn a_manager_and_then_its_runner_are_removed() {
    let world = world().await;
    let token = world.runner(&[]).token;
    let manager = json!({ "token": token, "system_id": "s_0123456789ab" });
    let remove = |path: &'static str, body: &Value| send(world.api(Method::DELETE, path).json(body));
    assert_eq!(remove("runners/managers", &manager).await.status, 404);
    assert_eq!(world.post("runners/verify", manager.clone()).await.status, 200);
    assert_eq!(remove("runners/managers", &json!({ "token": token })).await.status, 400);
    assert_eq!(remove("runners/managers", &manager).await.status, 204);
    assert_eq!(remove("runners", &json!({ "token": token })).await.status, 204);
    assert_eq!(remove("runners", &json!({ "token": token })).await.status, 403);
    assert_eq!(world.post("jobs/request", json!({ "token": token })).await.status, 403);
}
