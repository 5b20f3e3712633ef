//! `get_sources` in images without git: the agent does it by itself, and git itself judges what it made.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::sources::{at_commit, world};
use crate::support::repository::Repository;
use crate::support::{TOKEN, World, read, write_program};

async fn without_git(script: &[&str], strategy: &str) -> (World, Repository) {
    let (mut world, repository) = world(script, strategy).await;
    world.hide("git");
    // Else the last stage takes the settings away, and with them what a git outside needs.
    world.runner["clean_git_config"] = json!(false);
    (world, repository)
}

/// This machine's git in the project of the job.
fn git(world: &World, arguments: &[&str]) -> String {
    let output = Command::new("git").arg("-C").arg(world.project()).args(arguments).output().expect("git");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn sha(world: &World) -> String {
    world.payload["git_info"]["sha"].as_str().expect("a commit").to_owned()
}

#[tokio::test]
async fn the_sources_come_all_the_same_and_git_could_go_on_from_them() {
    let (mut world, repository) = without_git(&["cat file", "./run", "cat link", "! command -v git"], "clone").await;
    std::fs::create_dir_all(repository.path().join("deep/er")).expect("a folder");
    std::fs::write(repository.path().join("deep/er/file"), "x\n".repeat(1000)).expect("a file");
    std::fs::write(repository.path().join("empty"), "").expect("a file");
    write_program(&repository.path().join("run"), "echo it runs");
    std::os::unix::fs::symlink("deep/../file", repository.path().join("link")).expect("a link");
    at_commit(&mut world, &repository.commit_all("everything"));
    let ended = world.run().await.succeeded();
    ended.shows("This image has no git: the agent gets the sources by itself\n").shows("it runs\n").hides(TOKEN);
    ended.shows("Fetching changes with git depth set to 20...").shows("Created fresh repository.");
    ended.shows(&format!("Checking out {} as detached HEAD (ref is main)...", &sha(&world)[..8]));
    assert_eq!(world.gitlab.leaks(), [""; 0]);
    let headers = world.gitlab.git_headers();
    assert!(
        headers.iter().all(|one| one.starts_with("staffetta ") && one.ends_with(" 0123456789abcdef")),
        "{headers:?}"
    );

    assert_eq!(git(&world, &["status", "--porcelain"]), "");
    assert_eq!(
        git(&world, &["rev-parse", "HEAD", "refs/pipelines/101", "refs/remotes/origin/main"]),
        format!("{0}\n{0}\n{0}", sha(&world))
    );
    assert_eq!(read(world.project().join(".git/HEAD")), format!("{}\n", sha(&world)));
    assert_eq!(git(&world, &["remote", "get-url", "origin"]), format!("{}/grp/app.git", world.gitlab.url()));
    git(&world, &["fsck", "--strict"]);
    let mode =
        |name: &str| std::fs::symlink_metadata(world.project().join(name)).expect(name).permissions().mode() & 0o111;
    assert_eq!((mode("run") != 0, mode("file")), (true, 0));
    assert!(!read(world.project().join(".git/config")).contains(TOKEN));
}

#[tokio::test]
async fn depth_and_refspecs_decide_what_is_fetched() {
    let (mut world, repository) = without_git(&["cat file"], "fetch").await;
    let second = repository.commit("file", "second");
    repository.git(&["tag", "-a", "-m", "annotated", "v1"]);
    repository.git(&["push", "-q", "origin", "v1"]);
    at_commit(&mut world, &second);
    world.payload["git_info"]["depth"] = json!(1);
    world.run().await.succeeded().shows("second");
    assert_eq!(git(&world, &["rev-list", "--count", "HEAD"]), "1");
    assert_eq!(git(&world, &["rev-parse", "--is-shallow-repository"]), "true");
    world.payload["git_info"]["depth"] = json!(0);
    world.payload["git_info"]["refspecs"] = json!(["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]);
    world.run().await.succeeded().shows("Fetching changes...");
    assert_eq!(git(&world, &["rev-list", "--count", "HEAD"]), "2");
    assert_eq!(git(&world, &["describe", "HEAD"]), "v1");
    assert_eq!(git(&world, &["rev-parse", "--is-shallow-repository"]), "false");
}

#[tokio::test]
async fn git_that_the_script_installs_is_let_in() {
    let real = "/usr/bin/git";
    let script = format!("ln -s {real} $OWN/git && git fetch -q origin main && git log --format=%s -1 FETCH_HEAD");
    let (mut world, _repository) = without_git(&[&script], "clone").await;
    let own = world.place("own").display().to_string();
    world.set("OWN", &own);
    world.run().await.succeeded().shows("\nfile\n");
}

#[tokio::test]
async fn git_that_a_hook_installs_gets_the_sources() {
    let (mut world, _repository) = without_git(&["cat file"], "clone").await;
    let own = world.place("own").display().to_string();
    world.runner["pre_get_sources_script"] = json!(format!("ln -s /usr/bin/git {own}/git"));
    world.runner["post_get_sources_script"] = json!("git rev-parse HEAD");
    let ended = world.run().await.succeeded();
    ended.shows(&format!("\n{}\n", sha(&world))).hides("by itself");
}

#[tokio::test]
async fn hooks_run_before_and_after() {
    let (mut world, _repository) = without_git(&["true"], "clone").await;
    world.runner["pre_get_sources_script"] = json!("[ ! -e grp/app ] && echo before");
    world.runner["post_get_sources_script"] = json!("cat file; pwd");
    let project = world.project().display().to_string();
    world.run().await.succeeded().shows("\nbefore\n").shows(&format!("first{project}\n"));
}

#[tokio::test]
async fn names_of_sha256_are_understood() {
    let (mut world, _repository) = without_git(&["cat file"], "clone").await;
    let repository = Repository::with_format(&world.place("git"), "new", "sha256");
    let sha = repository.commit("file", "longer names");
    at_commit(&mut world, &sha);
    let url = world.payload["git_info"]["repo_url"].as_str().expect("a URL").replace("app.git", "new.git");
    world.payload["git_info"]["repo_url"] = json!(url);
    world.run().await.failed("script_failure", 1).shows("its objects are named by sha256, not by sha1");
    world.payload["git_info"]["repo_object_format"] = json!("sha256");
    let ended = world.run().await.succeeded();
    ended.shows("longer names");
    let new = world.project().with_file_name("new");
    let output = Command::new("git").arg("-C").arg(new).args(["fsck", "--strict"]).output().expect("git");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn attributes_decide_about_line_ends() {
    let (mut world, repository) = without_git(&["true"], "clone").await;
    std::fs::write(repository.path().join(".gitattributes"), "*.bat text eol=crlf\n*.bin binary\n").expect("a file");
    std::fs::write(repository.path().join("a.bat"), "one\ntwo\n").expect("a file");
    std::fs::write(repository.path().join("a.bin"), "one\ntwo\n").expect("a file");
    at_commit(&mut world, &repository.commit_all("line ends"));
    world.run().await.succeeded();
    assert_eq!(read(world.project().join("a.bat")), "one\r\ntwo\r\n");
    assert_eq!(read(world.project().join("a.bin")), "one\ntwo\n");
    assert_eq!(git(&world, &["status", "--porcelain"]), "");
}

#[tokio::test]
async fn a_second_job_finds_what_the_flags_leave() {
    for (flags, found) in [("-ffdx", "gone"), ("none", "kept")] {
        let (mut world, repository) =
            without_git(&["echo built > artifact; rm -f other; mkdir -p other/x"], "fetch").await;
        world.set("GIT_CLEAN_FLAGS", flags);
        world.run().await.succeeded();
        at_commit(&mut world, &repository.commit("other", "second"));
        world.payload["steps"] =
            json!([{"name": "script", "script": ["cat other; [ -e artifact ] && echo kept || echo gone"]}]);
        let ended = world.run().await.succeeded();
        ended.shows(&format!("second{found}\n"));
        if flags == "none" {
            ended.shows("WARNING: GIT_CLEAN_FLAGS needs git");
        }
    }
}

#[tokio::test]
async fn without_a_checkout_there_are_only_the_objects() {
    let (mut world, _repository) = without_git(&["ls"], "clone").await;
    world.set("GIT_CHECKOUT", "false");
    world.run().await.succeeded().shows("Skipping Git checkout").hides("\nfile\n");
    assert_eq!(git(&world, &["rev-parse", "refs/pipelines/101"]), sha(&world));
}

#[tokio::test]
async fn what_needs_git_says_which_package_is_missing() {
    let (mut world, repository) = without_git(&["cat big"], "clone").await;
    std::fs::write(repository.path().join(".gitattributes"), "big filter=lfs diff=lfs merge=lfs -text\n")
        .expect("a file");
    std::fs::write(repository.path().join("big"), "version https://git-lfs.github.com/spec/v1\n").expect("a file");
    at_commit(&mut world, &repository.commit_all("a large file"));
    world.run().await.failed("script_failure", 1).shows("add the packages git and git-lfs to the image");
    world.set("GIT_LFS_SKIP_SMUDGE", "true");
    world.run().await.succeeded().shows("version https://git-lfs.github.com/spec/v1");
    world.set("GIT_SUBMODULE_STRATEGY", "normal");
    world.run().await.failed("script_failure", 1).shows("add the package git to the image");
    world.set("GIT_SUBMODULE_STRATEGY", "none");
    world.runner["clone_url"] = json!("ssh://git@gitlab.test");
    world.run().await.failed("script_failure", 1).shows("add the packages git and openssh-client to the image");
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let (mut world, _repository) = without_git(&["true"], "clone").await;
    let good = world.payload.clone();
    world.payload["git_info"]["refspecs"] = json!(["+refs/heads/none:refs/remotes/origin/none"]);
    world.run().await.failed("script_failure", 1).shows("couldn't find remote ref refs/heads/none");
    world.payload = good.clone();
    let other = "1".repeat(40);
    world.payload["git_info"]["sha"] = json!(other);
    world.run().await.failed("script_failure", 1).shows(&format!("reference is not a tree: {other}"));
    world.payload = good;
    let url = world.payload["git_info"]["repo_url"].as_str().expect("a URL").replace("app.git", "none.git");
    world.payload["git_info"]["repo_url"] = json!(url);
    world.run().await.failed("script_failure", 1).shows("404").hides(TOKEN);
}

#[tokio::test]
async fn a_failed_fetch_is_tried_again() {
    let (mut world, _repository) = without_git(&["cat file"], "clone").await;
    world.set("GET_SOURCES_ATTEMPTS", "2");
    world.set("FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY", "false");
    // The second attempt finds the repository in its place.
    let (away, here) = (world.place("git/grp/away.git"), world.place("git/grp/app.git"));
    std::fs::rename(&here, &away).expect("a rename");
    let hook = format!("if [ -e once ]; then mv {} {}; fi; touch once", away.display(), here.display());
    world.runner["pre_get_sources_script"] = json!(hook);
    world.run().await.succeeded().shows("404").shows("first");
}

#[tokio::test]
async fn a_cancel_ends_a_fetch_that_never_ends() {
    let (world, _repository) = without_git(&["echo never"], "clone").await;
    world.gitlab.stall_git();
    world.gitlab.react("gets the sources by itself", "canceling");
    let ended = world.run().await;
    ended.shows("ERROR: Job failed: canceled").hides("\nnever");
}

#[tokio::test]
async fn a_redirect_is_followed_but_only_its_own_hosts_see_the_login() {
    let (world, _repository) = without_git(&["cat file"], "clone").await;
    let elsewhere = World::new(&["true"]).await;
    elsewhere.gitlab.serve_git(&world.place("git"));
    world.gitlab.move_git(elsewhere.gitlab.url());
    world.run().await.failed("script_failure", 1).shows("401").hides(TOKEN);
    assert_eq!(elsewhere.gitlab.git_logins(), [false]);
}

#[tokio::test]
async fn a_redirect_to_an_address_of_gitlab_keeps_the_login() {
    let (mut world, _repository) = without_git(&["cat file"], "clone").await;
    let old = World::new(&["true"]).await;
    old.gitlab.move_git(world.gitlab.url());
    let url = format!("{}/grp/app.git", old.gitlab.url().replacen("://", &format!("://gitlab-ci-token:{TOKEN}@"), 1));
    world.payload["git_info"]["repo_url"] = json!(url);
    world.run().await.succeeded().shows("first");
    assert_eq!(world.gitlab.git_logins(), [true; 3]);
}

/// A commit of a tree that git itself would never write.
fn hostile(repository: &Repository, entries: &[(&str, &str, &str)]) -> String {
    let hash = |kind: &str, content: &[u8]| {
        let file = repository.path().join(".git/object");
        std::fs::write(&file, content).expect("a file");
        repository.git(&["hash-object", "-w", "--literally", "-t", kind, file.to_str().expect("UTF-8")])
    };
    let mut tree = Vec::new();
    for (mode, name, content) in entries {
        let object = match *mode {
            "40000" => {
                let blob = hash("blob", content.as_bytes());
                hash("tree", &[b"100644 x\0".as_slice(), &bytes(&blob)].concat())
            }
            _ => hash("blob", content.as_bytes()),
        };
        tree.extend_from_slice(format!("{mode} {name}\0").as_bytes());
        tree.extend_from_slice(&bytes(&object));
    }
    let tree = hash("tree", &tree);
    let commit = repository.git(&["commit-tree", "-m", "hostile", &tree]);
    repository.git(&["push", "-q", "-f", "origin", &format!("{commit}:refs/heads/main")]);
    commit
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digits).collect()
}

#[tokio::test]
async fn a_hostile_tree_writes_nothing_outside_of_the_project() {
    let (mut world, repository) = without_git(&["true"], "clone").await;
    let outside = world.place("builds/grp");
    let target = outside.display().to_string();
    for entries in [
        &[("100644", "../escaped", "x")][..],
        &[("40000", "..", "x")],
        &[("40000", ".git", "x")],
        &[("40000", ".GIT", "x")],
        &[("100644", ".git", "gitdir: /tmp")],
        &[("40000", "git~1", "x")],
        &[("40000", ".", "x")],
        &[("100644", "a/b", "x")],
        // A link, and files "below" it.
        &[("120000", "a", &target), ("40000", "a", "escaped")],
        &[("120000", "a", &target), ("100644", "a", "escaped")],
        &[("120000", ".gitmodules", "/etc/passwd")],
    ] {
        let commit = hostile(&repository, entries);
        at_commit(&mut world, &commit);
        let ended = world.run().await.failed("script_failure", 1);
        ended.shows("tree of the commit");
        let here: Vec<_> =
            std::fs::read_dir(&outside).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(here, ["app"], "{entries:?}");
        assert!(!Path::new(&target).join("x").exists());
        let left: Vec<_> =
            std::fs::read_dir(world.project()).expect("the project").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, [".git"], "{entries:?}");
    }
}

#[tokio::test]
async fn a_link_that_an_earlier_job_left_is_not_followed() {
    let (mut world, repository) =
        without_git(&["rm -rf folder; ln -s $OUTSIDE folder; ln -sf $OUTSIDE/file file"], "fetch").await;
    let outside = world.place("outside");
    std::fs::create_dir(&outside).and_then(|()| std::fs::write(outside.join("file"), "theirs")).expect("a file");
    world.set("OUTSIDE", outside.to_str().expect("UTF-8"));
    world.set("GIT_CLEAN_FLAGS", "none");
    world.run().await.succeeded();
    std::fs::create_dir(repository.path().join("folder")).expect("a folder");
    std::fs::write(repository.path().join("folder/new"), "ours").expect("a file");
    at_commit(&mut world, &repository.commit("file", "ours"));
    world.payload["steps"] = json!([{"name": "script", "script": ["cat file folder/new"]}]);
    world.run().await.succeeded().shows("oursours");
    assert_eq!(read(outside.join("file")), "theirs");
    assert!(!outside.join("new").exists());
}

#[tokio::test]
async fn files_that_git_would_not_know_are_known_all_the_same() {
    let script = ["echo ignored > .gitignore", "mkdir -p d; touch new d/ignored; echo changed > file"];
    let (mut world, _repository) = without_git(&script, "clone").await;
    world.payload["artifacts"] = json!([{"untracked": true}]);
    world.run().await.succeeded().shows("untracked: found 3 files");
    world.set("GIT_STRATEGY", "none");
    world.payload["artifacts"] = json!([{"untracked": true, "paths": ["file"]}]);
    std::fs::remove_dir_all(world.project().join(".git")).expect("the repository");
    world
        .run()
        .await
        .succeeded()
        .shows("WARNING: untracked: there is no git in this image, and the index cannot be read");
}

#[tokio::test]
async fn a_file_that_no_task_has_the_memory_for_is_refused_with_advice() {
    let (mut world, repository) = without_git(&["echo never"], "clone").await;
    let file = std::fs::File::create(repository.path().join("large")).expect("a file");
    file.set_len((512 << 20) + 1).expect("a large file");
    repository.git(&["config", "core.compression", "1"]);
    at_commit(&mut world, &repository.commit_all("large"));
    let ended = world.run().await.failed("script_failure", 1);
    ended.shows("may be larger than 512 MiB: add the package git to the image").hides("\nnever");
}
