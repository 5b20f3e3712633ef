//! `get_sources` with real repositories.

use serde_json::json;

use crate::support::repository::Repository;
use crate::support::{TOKEN, World, read};

/// A job in a repository that is served over HTTP to those who know the token.
pub async fn world(script: &[&str], strategy: &str) -> (World, Repository) {
    let mut world = World::new(script).await;
    let repository = Repository::create(&world.place("git"), "app");
    world.gitlab.serve_git(&world.place("git"));
    let sha = repository.commit("file", "first");
    world.set("GIT_STRATEGY", strategy);
    at_commit(&mut world, &sha);
    (world, repository)
}

pub fn at_commit(world: &mut World, sha: &str) {
    let url = world.gitlab.url().replacen("://", &format!("://gitlab-ci-token:{TOKEN}@"), 1);
    world.payload["git_info"] = json!({
        "repo_url": format!("{url}/grp/app.git"), "ref": "main", "sha": sha, "depth": 20,
        "refspecs": [format!("+{sha}:refs/pipelines/101"), "+refs/heads/main:refs/remotes/origin/main"],
    });
}

#[tokio::test]
async fn the_commit_is_checked_out_and_the_token_is_nowhere_to_be_seen() {
    let script = [
        "cat file",
        "git rev-parse HEAD",
        "! grep -r gitlab-ci-token .git/config",
        "git remote get-url origin",
        "stat -c 'mode %a' $RUNNER_TEMP_PROJECT_DIR/.git-credentials",
        "git fetch -q origin main && echo fetched again",
    ];
    let (world, _repository) = world(&script, "clone").await;
    let sha = world.payload["git_info"]["sha"].as_str().expect("a commit").to_owned();
    let ended = world.run().await.succeeded();
    ended.shows("\x1b[32;1mFetching changes with git depth set to 20...").shows("Created fresh repository.");
    ended.shows(&format!("Checking out {} as detached HEAD (ref is main)...", &sha[..8]));
    ended.shows("Skipping Git submodules setup").shows(&format!("{sha}\n")).shows("fetched again\n");
    ended.shows(&format!("{}/grp/app.git\n", world.gitlab.url())).shows("mode 600\n").hides(TOKEN);
    assert_eq!(world.gitlab.leaks(), [""; 0], "the token was on a command line");
    let headers = world.gitlab.git_headers();
    assert!(headers[0].starts_with("staffetta ") && headers[0].ends_with(" 0123456789abcdef"), "{headers:?}");
}

#[tokio::test]
async fn fetch_keeps_the_checkout_and_cleans_it() {
    let (mut world, repository) =
        world(&["echo built > artifact; echo changed > file; git config core.x y"], "fetch").await;
    world.run().await.succeeded();
    let second = repository.commit("other", "second");
    at_commit(&mut world, &second);
    world.payload["steps"] =
        json!([{"name": "script", "script": ["cat file other; ls; git config core.x || echo forgotten"]}]);
    let ended = world.run().await.succeeded();
    ended.shows("firstsecond").shows("Removing artifact\n").shows("forgotten\n").hides("\nartifact\n");
}

#[tokio::test]
async fn clone_starts_from_nothing_and_the_flags_decide_about_cleaning() {
    for (strategy, left) in [("clone", "gone"), ("fetch", "still there")] {
        let (mut world, _repository) = world(&["touch kept"], strategy).await;
        world.set("GIT_CLEAN_FLAGS", "none");
        world.run().await.succeeded();
        world.payload["steps"] =
            json!([{"name": "script", "script": ["[ -e kept ] && echo still there || echo gone"]}]);
        world.run().await.succeeded().shows(&format!("{left}\n"));
    }
}

#[tokio::test]
async fn depth_and_refspecs_decide_what_is_fetched() {
    let (mut world, repository) = world(&["git rev-list --count HEAD", "git tag -l"], "clone").await;
    let second = repository.commit("file", "second");
    repository.git(&["tag", "v1"]);
    repository.git(&["push", "-q", "origin", "v1"]);
    at_commit(&mut world, &second);
    world.payload["git_info"]["depth"] = json!(1);
    world.set("GIT_FETCH_EXTRA_FLAGS", "--quiet --no-tags");
    world.run().await.succeeded().shows("\n1\n").hides("\nv1\n");
    world.payload["git_info"]["depth"] = json!(0);
    world.payload["git_info"]["refspecs"] = json!(["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]);
    world.set("GIT_STRATEGY", "fetch");
    // The repository that is there is shallow; the whole history is wanted now.
    world.run().await.succeeded().shows("Fetching changes...").shows("\n2\n").shows("\nv1\n");
}

#[tokio::test]
async fn without_a_checkout_there_are_only_the_objects() {
    let (mut world, _repository) = world(&["ls; git rev-parse refs/pipelines/101"], "clone").await;
    world.set("GIT_CHECKOUT", "false");
    let sha = world.payload["git_info"]["sha"].as_str().expect("a commit").to_owned();
    world.run().await.succeeded().shows("Skipping Git checkout").shows(&sha).hides("\nfile\n");
}

#[tokio::test]
async fn strategies_none_and_empty_need_no_repository() {
    let mut world = World::new(&["ls", "pwd"]).await;
    std::fs::create_dir_all(world.project())
        .and_then(|()| std::fs::write(world.project().join("kept"), ""))
        .expect("a file");
    world.run().await.succeeded().shows("Skipping Git repository setup").shows("\nkept\n");
    world.set("GIT_STRATEGY", "empty");
    let ended = world.run().await.succeeded();
    ended.hides("\nkept\n").shows(&format!("{}-empty\n", world.project().display()));
}

#[tokio::test]
async fn hooks_run_around_the_sources_in_the_same_shell() {
    let (mut world, _repository) = world(&["cat file"], "clone").await;
    let project = world.project().display().to_string();
    world.runner["pre_get_sources_script"] = json!("export ORDER=runner; [ ! -e grp/app ]");
    world.runner["post_get_sources_script"] = json!("echo end: $ORDER in $(pwd)");
    world.payload["hooks"] = json!([
        {"name": "pre_get_sources_script", "script": ["ORDER=$ORDER,job"]},
        {"name": "post_get_sources_script", "script": ["ORDER=$ORDER,post; cat file"]},
        {"name": "something_new", "script": ["exit 1"]},
    ]);
    world.run().await.succeeded().shows(&format!("end: runner,job,post in {project}\n"));
}

#[tokio::test]
async fn a_failing_fetch_is_a_script_failure_and_skips_the_scripts() {
    let (mut world, _repository) = world(&["echo never"], "clone").await;
    world.after_script(&["echo nor this"]);
    world.payload["git_info"]["refspecs"] = json!(["+refs/heads/none:refs/remotes/origin/none"]);
    world.payload["artifacts"] = json!([{"paths": ["x"], "when": "on_failure"}]);
    let ended = world.run().await.failed("script_failure", 128);
    ended.hides("\nnever").hides("nor this").shows("Uploading artifacts for failed job").shows("Cleaning up");
}

#[tokio::test]
async fn a_second_try_begins_with_a_clear_worktree() {
    let (mut world, _repository) = world(&["cat file"], "fetch").await;
    world.set("GET_SOURCES_ATTEMPTS", "2");
    world.set("FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY", "false");
    // Fails once: the first try makes what the second one needs.
    world.runner["pre_get_sources_script"] =
        json!("if [ ! -e ../once ]; then mkdir -p grp/app; touch ../once; exit 1; fi");
    world
        .run()
        .await
        .succeeded()
        .shows("Deleting all tracked and untracked files due to source fetch failure")
        .shows("first");
}

#[tokio::test]
async fn submodules_come_with_the_jobs_token() {
    let (mut world, repository) = world(&["cat library/code"], "clone").await;
    let library = Repository::create(&world.place("git"), "library");
    library.commit("code", "of the library");
    // Relative, as projects of one GitLab name each other.
    std::fs::write(world.place("modules"), "").expect("a file");
    let path = library.bare.to_str().expect("UTF-8").to_owned();
    repository.git(&["submodule", "--quiet", "add", &path, "library"]);
    repository.git(&["config", "-f", ".gitmodules", "submodule.library.url", "../library.git"]);
    let sha = repository.commit_all("with a library");
    at_commit(&mut world, &sha);
    for strategy in ["normal", "recursive"] {
        world.set("GIT_SUBMODULE_STRATEGY", strategy);
        world.run().await.succeeded().shows("of the library").shows("Updating/initializing submodules");
    }
    assert_eq!(world.gitlab.leaks(), [""; 0]);
    world.set("GIT_SUBMODULE_STRATEGY", "all");
    world.run().await.failed("runner_system_failure", 0).shows("GIT_SUBMODULE_STRATEGY must be");
}

#[tokio::test]
async fn another_address_of_gitlab_can_be_configured() {
    let (mut world, _repository) = world(&["cat file; git remote get-url origin"], "clone").await;
    let url = world.gitlab.url().to_owned();
    world.runner["clone_url"] = json!(url);
    world.payload["git_info"]["repo_url"] = json!(format!("https://gitlab-ci-token:{TOKEN}@gitlab.test/grp/app.git"));
    world.set("CI_PROJECT_PATH", "grp/app");
    world.run().await.succeeded().shows(&format!("{url}/grp/app.git\n"));
    assert_eq!(read(world.project().join("file")), "first");
}
