use crate::client::{git, git_command, job, pipeline, world};

#[tokio::test(flavor = "multi_thread")]
async fn git_clones_and_fetches_with_the_token_of_a_running_job() {
    let world = world().await;
    let taken = world.running(job("a", "build")).await;
    let url = taken.payload["git_info"]["repo_url"].as_str().expect("a URL").to_owned();
    let directory = tempfile::tempdir().expect("a directory");
    git(directory.path(), &["clone", "--quiet", "--depth", "1", &url, "shallow"]);
    let shallow = directory.path().join("shallow");
    assert_eq!(git(&shallow, &["rev-list", "--count", "HEAD"]), "1");
    assert_eq!(std::fs::read_to_string(shallow.join("file.txt")).expect("the file"), "3");

    git(directory.path(), &["init", "--quiet", "fetched"]);
    let fetched = directory.path().join("fetched");
    let refspecs = taken.payload["git_info"]["refspecs"].as_array().expect("refspecs");
    let mut fetch = vec!["fetch", "--quiet", url.as_str()];
    fetch.extend(refspecs.iter().map(|refspec| refspec.as_str().expect("text")));
    git(&fetched, &fetch);
    let sha = taken.payload["git_info"]["sha"].as_str().expect("a commit");
    let pipeline = taken.payload["job_info"]["pipeline_id"].clone();
    assert_eq!(git(&fetched, &["rev-parse", &format!("refs/pipelines/{pipeline}")]), sha);
    assert_eq!(git(&fetched, &["rev-parse", "refs/remotes/origin/main"]), sha);
    assert_eq!(git(&fetched, &["rev-list", "--count", sha]), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_reads_and_nobody_writes() {
    let world = world().await;
    let taken = world.running(job("a", "build")).await;
    let url = taken.payload["git_info"]["repo_url"].as_str().expect("a URL").to_owned();
    let directory = tempfile::tempdir().expect("a directory");
    let refused = |url: &str| {
        let output = git_command(directory.path()).args(["ls-remote", url]).output().expect("git");
        assert!(!output.status.success(), "{url}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for wrong in [url.replace(taken.token(), "glcbt-64_wrong"), url.replace("gitlab-ci-token", "root")] {
        assert!(refused(&wrong).contains("Authentication failed"));
    }
    let anonymous = format!("{}/group/project.git", world.server.url());
    assert!(refused(&anonymous).contains("could not read Username"));
    let push = git_command(world.repo()).args(["push", "--quiet", &url, "HEAD:refs/heads/mine"]).output().expect("git");
    assert!(String::from_utf8_lossy(&push.stderr).contains("403"), "{}", String::from_utf8_lossy(&push.stderr));
    git(directory.path(), &["ls-remote", &url]);
    taken.succeed().await;
    assert!(refused(&url).contains("Authentication failed"), "the job is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_of_several_repositories_are_served_and_these_are_not_touched() {
    let world = world().await;
    let directory = tempfile::tempdir().expect("a directory");
    let other = directory.path().join("other");
    let source = format!("file://{}", world.repo().display());
    git(directory.path(), &["clone", "--quiet", "--depth", "2", &source, "other"]);
    git(&other, &["commit", "--quiet", "--allow-empty", "-m", "Only here"]);
    let refs = |repo: &std::path::Path| git(repo, &["for-each-ref"]);
    let (before_one, before_two) = (refs(world.repo()), refs(&other));
    world.pipeline(pipeline(vec![job("one", "build")])).await;
    let source = embedded::gitlab::PipelineSource {
        repo: other.clone(),
        commit: "HEAD".into(),
        git_ref: embedded::gitlab::Ref::branch("topic"),
        pipeline: pipeline(vec![job("two", "build")]),
        variables: Vec::new(),
    };
    world.server.create_pipeline(source).await.expect("a pipeline");
    let runner = world.runner(&[]);
    runner.take().await;
    let two = runner.take().await;
    let url = two.payload["git_info"]["repo_url"].as_str().expect("a URL");
    git(directory.path(), &["clone", "--quiet", "--branch", "topic", url, "clone"]);
    let clone = directory.path().join("clone");
    assert_eq!(git(&clone, &["log", "-1", "--format=%s"]), "Only here");
    assert_eq!(two.payload["git_info"]["protected"], false);
    assert_eq!((refs(world.repo()), refs(&other)), (before_one, before_two));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_projects_and_tags_are_served_to_whoever_may_read_the_first() {
    let world = world().await;
    git(world.repo(), &["tag", "v1", "HEAD~1"]);
    let directory = tempfile::tempdir().expect("a directory");
    git(directory.path(), &["init", "--quiet", "--initial-branch=trunk", "library"]);
    let library = directory.path().join("library");
    git(&library, &["commit", "--quiet", "--allow-empty", "-m", "Of the library"]);
    world.server.serve_repository("other-group/sub/library", &library).await.expect("it is served");
    for wrong in ["library", "../out/side", "group/.git", "group//x"] {
        world.server.serve_repository(wrong, &library).await.expect_err(wrong);
    }
    let taken = world.running(job("a", "build")).await;
    let url = taken.payload["git_info"]["repo_url"].as_str().expect("a URL");
    assert_eq!(git(directory.path(), &["ls-remote", "--tags", url]).lines().count(), 1);
    let url = url.replace("group/project.git", "other-group/sub/library.git");
    git(directory.path(), &["clone", "--quiet", &url, "clone"]);
    assert_eq!(
        git(&directory.path().join("clone"), &["log", "-1", "--format=%s %D"]),
        "Of the library HEAD -> trunk, origin/trunk, origin/HEAD"
    );
    let anonymous = format!("{}/other-group/sub/library.git", world.server.url());
    let output = git_command(directory.path()).args(["ls-remote", &anonymous]).output().expect("git");
    assert!(!output.status.success());
}

#[tokio::test]
async fn a_commit_that_does_not_exist_is_named() {
    let world = world().await;
    let source = embedded::gitlab::PipelineSource {
        repo: world.repo().to_owned(),
        commit: "no-such-branch".into(),
        git_ref: embedded::gitlab::Ref::branch("main"),
        pipeline: pipeline(vec![job("a", "build")]),
        variables: Vec::new(),
    };
    let error = world.server.create_pipeline(source).await.expect_err("no commit");
    assert!(error.to_string().contains("no-such-branch"), "{error}");
}
