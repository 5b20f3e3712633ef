//! What `get_sources` asks of the image's git beside the plain fetch: submodules, LFS, other ways in, cleaning up.

use serde_json::json;

use crate::sources::{at_commit, world};
use crate::support::repository::Repository;
use crate::support::{TOKEN, World, read};

/// Stands before the real git, writes down how it was called, and passes for another version.
fn fake_git(world: &mut World, version: &str) -> std::path::PathBuf {
    let calls = world.place("calls");
    let script = format!(
        "printf '%s\\n' \"$*\" >> {}\nif [ \"$1\" = version ]; then echo 'git version {version}'; exit; fi\nexec /usr/bin/git \"$@\"",
        calls.display()
    );
    world.program("git", &script);
    calls
}

#[tokio::test]
async fn a_new_git_clones_natively_where_the_flag_is_on() {
    for (version, native) in [("2.49.0", true), ("3.0.0-rc1", true), ("2.48.9", false), ("1.99", false)] {
        let (mut world, _repository) = world(&["cat file; git rev-parse HEAD"], "clone").await;
        let calls = fake_git(&mut world, version);
        world.set("FF_USE_GIT_NATIVE_CLONE", "true");
        world.set("GIT_CLONE_EXTRA_FLAGS", "--no-tags --quiet");
        let ended = world.run().await.succeeded();
        let calls = read(calls);
        let clone = format!("clone --no-checkout {}/grp/app.git", world.gitlab.url());
        assert_eq!(calls.contains(&clone), native, "{calls}");
        if native {
            ended.shows("Cloning repository for main with git depth set to 20...");
            assert!(calls.contains(" --depth 20 --branch main --no-tags --quiet\n"), "{calls}");
        } else {
            ended.shows("Fetching changes with git depth set to 20...");
        }
        ended.shows("first").hides(TOKEN);
        assert_eq!(world.gitlab.leaks(), [""; 0]);
    }
}

#[tokio::test]
async fn a_whole_reference_is_cloned_as_a_revision() {
    let (mut world, _repository) = world(&["true"], "clone").await;
    let calls = fake_git(&mut world, "2.49.0");
    world.set("FF_USE_GIT_NATIVE_CLONE", "true");
    world.payload["git_info"]["ref"] = json!("refs/merge-requests/7/head");
    // The real git behind is too old for it.
    world.run().await.failed("script_failure", 129);
    assert!(read(calls).contains(" --revision refs/merge-requests/7/head"));
}

#[tokio::test]
async fn the_token_is_shown_at_once_where_the_flag_is_on() {
    let (mut world, _repository) = world(&["true"], "clone").await;
    let calls = fake_git(&mut world, "2.46.0");
    world.set("FF_USE_GIT_PROACTIVE_AUTH", "true");
    world.run().await.succeeded();
    let calls = read(calls);
    let setting = format!("-c http.{}.proactiveAuth=basic ", world.gitlab.url());
    assert!(calls.contains(&format!("{setting}fetch ")) && calls.contains(&format!("{setting}checkout ")), "{calls}");
}

#[tokio::test]
async fn settings_for_git_are_where_scripts_expect_them() {
    let script = [
        "git config transfer.bundleURI",
        "git config init.defaultBranch; git config gc.autoDetach; git config credential.interactive",
        "git config --global --get-all safe.directory",
    ];
    let (mut world, _repository) = world(&script, "fetch").await;
    let project = world.project().display().to_string();
    for _ in 0..2 {
        let ended = world.run().await.succeeded();
        ended.shows("Gitaly correlation ID: 0123456789abcdef").shows("\ntrue\n").shows("\nnone\nfalse\nnever\n");
        // Once, however often.
        assert_eq!(ended.trace.matches(&format!("{project}\n")).count(), 1, "{}", ended.trace);
    }
    world.set("FF_USE_GIT_BUNDLE_URIS", "false");
    world.set("FF_USE_GITALY_CORRELATION_ID", "false");
    world.runner["safe_directory_checkout"] = json!(false);
    world.payload["steps"] = json!([{"name": "script", "script": ["git config transfer.bundleURI || echo unset"]}]);
    let before = world.gitlab.git_headers().len();
    world.run().await.succeeded().shows("\nunset\n").hides("Gitaly correlation");
    assert!(world.gitlab.git_headers()[before..].iter().all(|headers| headers.ends_with(' ')));
}

#[tokio::test]
async fn settings_of_an_earlier_job_stay_only_where_the_runner_says_so() {
    for (clean, left) in [(json!(null), "forgotten"), (json!(true), "forgotten"), (json!(false), "kept")] {
        let (mut world, _repository) = world(&["git config core.x kept; touch .git/index.lock"], "fetch").await;
        world.runner["clean_git_config"] = clean;
        world.run().await.succeeded().shows("Created fresh repository.");
        world.payload["steps"] =
            json!([{"name": "script", "script": ["git config core.x || echo forgotten", "git fetch -q origin main"]}]);
        world.run().await.succeeded().shows(&format!("\n{left}\n"));
    }
}

#[tokio::test]
async fn git_is_let_in_everywhere_where_urls_have_no_tokens() {
    let (mut world, _repository) = world(&["true"], "none").await;
    let url = format!("{}/grp/app.git", world.gitlab.url());
    world.set("FF_GIT_URLS_WITHOUT_TOKENS", "true");
    std::fs::write(world.place("home/.gitconfig"), "[user]\n\tname = me\n").expect("a file");
    let script = format!("cd / && git ls-remote {url} main && git config user.name");
    for strategy in ["none", "empty", "clone", "fetch"] {
        world.set("GIT_STRATEGY", strategy);
        world.payload["steps"] = json!([
            {"name": "script", "script": [script, "echo $GIT_CONFIG_GLOBAL"]},
            {"name": "after_script", "script": [script]},
        ]);
        let ended = world.run().await.succeeded();
        ended.shows(".tmp/.glr.gconf\n").hides("after_script failed").hides(TOKEN);
        assert_eq!(ended.trace.matches("\trefs/heads/main\nme\n").count(), 2, "{}", ended.trace);
    }
    assert_eq!(world.gitlab.leaks(), [""; 0]);
}

#[tokio::test]
async fn the_time_for_sources_may_be_limited() {
    let (mut world, _repository) = world(&["echo never"], "clone").await;
    world.runner["get_sources_timeout"] = json!(1);
    world.runner["pre_get_sources_script"] = json!("sleep 60");
    world.payload["artifacts"] = json!([{"paths": ["x"], "when": "always"}]);
    let ended = world.run().await.failed("job_execution_timeout", 0);
    ended
        .shows("ERROR: Job failed: get sources timeout: exceeded timeout of 1s")
        .hides("Uploading")
        .hides("Cleaning up");
}

#[tokio::test]
async fn names_of_sha256_stay_so_in_the_next_job() {
    let (mut world, _repository) = world(&["cat file; git rev-parse HEAD"], "fetch").await;
    let repository = Repository::with_format(&world.place("git"), "new", "sha256");
    let sha = repository.commit("file", "longer names");
    at_commit(&mut world, &sha);
    let url = world.payload["git_info"]["repo_url"].as_str().expect("a URL").replace("app.git", "new.git");
    world.payload["git_info"]["repo_url"] = json!(url);
    world.payload["git_info"]["repo_object_format"] = json!("sha256");
    for _ in 0..2 {
        world.run().await.succeeded().shows(&format!("longer names{sha}\n"));
    }
}

/// The job's project has the other one at `library`.
async fn with_library(url: &str, script: &[&str]) -> (World, Repository, Repository) {
    let (mut world, repository) = world(script, "fetch").await;
    let library = Repository::create(&world.place("git"), "library");
    library.commit("code", "of the library");
    repository.submodule("library", &library, url);
    let sha = repository.commit_all("with a library");
    at_commit(&mut world, &sha);
    world.set("GIT_SUBMODULE_STRATEGY", "normal");
    (world, repository, library)
}

#[tokio::test]
async fn submodules_say_what_they_do_and_can_be_worked_in() {
    let script = ["cd library && git fetch -q origin main && git rev-list --count HEAD"];
    let (mut world, _repository, library) = with_library("../library.git", &script).await;
    world.run().await.succeeded();
    library.commit("code", "not yet wanted");
    world.set("GIT_SUBMODULE_STRATEGY", "recursive");
    world.set("GIT_SUBMODULE_DEPTH", "1");
    let ended = world.run().await.succeeded();
    ended.shows("Updating/initializing submodules recursively with git depth set to 1...").shows("Updated submodules");
    ended.shows("Configuring submodules to use parent git credentials...").shows("\n1\n");
    assert_eq!(world.gitlab.leaks(), [""; 0]);
}

#[tokio::test]
async fn submodules_of_submodules_need_the_recursive_strategy() {
    let (mut world, repository, library) =
        with_library("../library.git", &["cat library/inner/code || echo missing"]).await;
    let inner = Repository::create(&world.place("git"), "inner");
    inner.commit("code", "of the inner one");
    library.submodule("inner", &inner, "../inner.git");
    library.commit_all("with an inner one");
    repository.git(&["-C", "library", "pull", "-q", "origin", "main"]);
    at_commit(&mut world, &repository.commit_all("newer library"));
    world.run().await.succeeded().shows("\nmissing\n");
    world.set("GIT_SUBMODULE_STRATEGY", "recursive");
    world.run().await.succeeded().shows("of the inner one");
}

#[tokio::test]
async fn paths_choose_among_submodules() {
    let script = ["ls library tools"];
    let (mut world, repository, _library) = with_library("../library.git", &script).await;
    let tools = Repository::create(&world.place("git"), "tools");
    tools.commit("hammer", "");
    repository.submodule("tools", &tools, "../tools.git");
    at_commit(&mut world, &repository.commit_all("with tools"));
    world.set("GIT_SUBMODULE_PATHS", "tools");
    world.run().await.succeeded().shows("library:\n\ntools:\nhammer\n");
    world.set("GIT_STRATEGY", "clone");
    world.set("GIT_SUBMODULE_PATHS", ":(exclude)tools");
    world.run().await.succeeded().shows("library:\ncode\n\ntools:\n");
    world.set("GIT_SUBMODULE_PATHS", ":(exclude) tools");
    world.run().await.failed("runner_system_failure", 0).shows("GIT_SUBMODULE_PATHS");
    world.set("GIT_SUBMODULE_STRATEGY", "none");
    world.run().await.succeeded();
    world.set("GIT_SUBMODULE_STRATEGY", "all");
    world.run().await.failed("runner_system_failure", 0).shows("GIT_SUBMODULE_STRATEGY must be");
    world.set("GIT_STRATEGY", "none");
    world.run().await.succeeded();
}

#[tokio::test]
async fn update_flags_can_ask_for_the_newest_of_a_branch() {
    let (mut world, repository, library) = with_library("../library.git", &["cat library/code"]).await;
    world.run().await.succeeded().shows("of the library");
    library.git(&["checkout", "-q", "-b", "next"]);
    std::fs::write(library.path().join("code"), "of the next version").expect("a file");
    library.git(&["commit", "-q", "-a", "-m", "next"]);
    library.git(&["push", "-q", "origin", "next"]);
    repository.git(&["config", "-f", ".gitmodules", "submodule.library.branch", "next"]);
    at_commit(&mut world, &repository.commit_all("follows a branch"));
    world.set("GIT_SUBMODULE_UPDATE_FLAGS", "--remote --jobs 2");
    world.set("GIT_SUBMODULE_DEPTH", "1");
    world.run().await.succeeded().shows("of the next version");
}

#[tokio::test]
async fn ssh_addresses_of_submodules_are_read_as_https_ones_where_that_is_wished() {
    for (address, port) in
        [("git@gitlab.test:grp/library.git", ""), ("ssh://git@gitlab.test:2222/grp/library.git", "2222")]
    {
        let (mut world, _repository, _library) = with_library(address, &["cat library/code"]).await;
        world.set("CI_SERVER_SHELL_SSH_HOST", "gitlab.test");
        world.set("CI_SERVER_SHELL_SSH_PORT", port);
        world.set("GIT_SSH_COMMAND", "false");
        world.run().await.failed("script_failure", 1);
        world.set("GIT_SUBMODULE_FORCE_HTTPS", "true");
        world.run().await.succeeded().shows("of the library");
        assert_eq!(world.gitlab.leaks(), [""; 0]);
    }
}

#[tokio::test]
async fn large_files_are_pulled_where_git_lfs_is_there_and_not_told_otherwise() {
    let script = ["echo smudge is ${GIT_LFS_SKIP_SMUDGE:-unset}"];
    let (mut world, repository) = world(&script, "clone").await;
    std::fs::write(repository.path().join(".gitattributes"), "big -text diff=lfs\nother filter=lfs\n").expect("a file");
    at_commit(&mut world, &repository.commit_all("a large file"));
    world.hide("git-lfs");
    world.run().await.succeeded().shows("WARNING: files of this repository are in Git LFS");
    world.program("git-lfs", "echo \"git-lfs $* with $GIT_LFS_SKIP_SMUDGE\"");
    let ended = world.run().await.succeeded();
    ended.shows("\ngit-lfs pull with 1\n").shows("smudge is unset").hides("WARNING: files of this");
    world.set("GIT_LFS_SKIP_SMUDGE", "false");
    world.run().await.succeeded().shows("\ngit-lfs pull with 1\n").shows("smudge is false");
    world.set("GIT_LFS_SKIP_SMUDGE", "true");
    world.run().await.succeeded().shows("smudge is true").hides("git-lfs pull");
}

#[tokio::test]
async fn git_lfs_itself_is_let_in_and_brings_the_content() {
    let (mut world, repository) = world(&["cat big"], "clone").await;
    let content = "much more than a pointer\n";
    let sum = std::process::Command::new("sh")
        .args(["-c", &format!("printf '%s' '{content}' | sha256sum | cut -d' ' -f1")])
        .output()
        .expect("sha256sum");
    let oid = String::from_utf8(sum.stdout).expect("text").trim().to_owned();
    world.gitlab.store_large_file(&oid, content.as_bytes());
    std::fs::write(repository.path().join(".gitattributes"), "big filter=lfs diff=lfs merge=lfs -text\n")
        .expect("a file");
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {}\n", content.len());
    std::fs::write(repository.path().join("big"), pointer).expect("a file");
    at_commit(&mut world, &repository.commit_all("a large file"));
    // What an image with git-lfs has in its settings.
    std::fs::write(
        world.place("home/.gitconfig"),
        "[filter \"lfs\"]\n\tclean = git-lfs clean -- %f\n\tsmudge = git-lfs smudge -- %f\n\tprocess = git-lfs filter-process\n\trequired = true\n",
    )
    .expect("a file");
    world.run().await.succeeded().shows(content).hides(TOKEN);
    assert_eq!(world.gitlab.leaks(), [""; 0]);
}

#[tokio::test]
async fn large_files_of_submodules_are_pulled_too() {
    let (mut world, repository, library) = with_library("../library.git", &["true"]).await;
    world.program("git-lfs", "echo \"git-lfs $* in $(basename $(pwd))\"");
    library.commit(".gitattributes", "big filter=lfs\n");
    repository.git(&["-C", "library", "pull", "-q", "origin", "main"]);
    at_commit(&mut world, &repository.commit_all("with a library that has large files"));
    let ended = world.run().await.succeeded();
    ended.hides("git-lfs pull in app\n").shows("Pulling LFS files...").shows("git-lfs pull in library\n");
}

#[tokio::test]
async fn the_last_stage_removes_what_the_job_built_if_it_is_told_to() {
    for (strategy, left) in [("clone", None), ("empty", None), ("fetch", Some("first")), ("none", Some("changed"))] {
        let (mut world, _repository) = world(&["echo changed > file; echo built > artifact"], strategy).await;
        std::fs::create_dir_all(world.project()).expect("a folder");
        world.set("FF_ENABLE_JOB_CLEANUP", "true");
        world.run().await.succeeded();
        let project = if strategy == "empty" { world.project().with_file_name("app-empty") } else { world.project() };
        assert_eq!(
            std::fs::read_to_string(project.join("file")).ok().as_deref().map(str::trim_end),
            left,
            "{strategy}"
        );
        assert_eq!(project.join("artifact").exists(), strategy == "none");
    }
}

#[tokio::test]
async fn a_store_of_the_users_forgets_the_token() {
    let (mut world, _repository) = world(&["true"], "clone").await;
    let host = world.gitlab.url().replacen("http://", "", 1);
    let approve = |password: &str, user: &str| {
        let lines = format!("protocol=http\\nhost={host}\\nusername={user}\\npassword=%s\\n\\n");
        format!("printf '{lines}' \"{password}\" | git -C / credential approve")
    };
    world.payload["steps"] = json!([{"name": "script", "script": [
        "git config --global credential.helper store", approve("$CI_JOB_TOKEN", "gitlab-ci-token"), approve("mine", "me"),
        "cat ~/.git-credentials",
    ]}]);
    world.run().await.succeeded().shows("http://gitlab-ci-token:[MASKED]@");
    let host = host.replace(':', "%3a");
    assert_eq!(read(world.place("home/.git-credentials")), format!("http://me:mine@{host}\n"));
}
