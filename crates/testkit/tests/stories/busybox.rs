//! An image with busybox and nothing else: no git, no bash, no certificates. The agent brings everything that a job needs.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use embedded::gitlab::{self, Status};
use tempfile::TempDir;
use testkit::Moto;
use testkit::{Setup, World};

use crate::tls_proxy::{self, CERTIFICATES, LetsIn};

/// The one that is linked with nothing: an image like this has no libraries.
fn static_agent() -> PathBuf {
    let path = format!("../../target/static/dev/{}/staffetta-agent", std::env::consts::ARCH);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    assert!(path.is_file(), "{} is missing: run `scripts/static-programs dev` first", path.display());
    path
}

/// A root file system.
fn busybox() -> TempDir {
    let root = tempfile::tempdir().expect("a folder");
    let bin = root.path().join("bin");
    std::fs::create_dir(&bin).expect("a folder");
    std::fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox: apt-get install busybox-static");
    let list = Command::new("/bin/busybox").arg("--list").output().expect("busybox");
    for name in String::from_utf8(list.stdout).expect("names").lines().filter(|name| *name != "busybox") {
        symlink("busybox", bin.join(name)).expect("a link");
    }
    root
}

const PIPELINE: &str = r#"
stages: [build, test]
variables: { GIT_DEPTH: "2" }
build:
  stage: build
  tags: [dev]
  script:
    - "! command -v git && ! command -v bash && [ ! -e /etc/ssl ]"
    - cat hello.txt && ./run.sh && readlink link
    - cat .git/HEAD && wc -l < .git/shallow
    - mkdir -p out deps && echo "built from $CI_COMMIT_SHA" > out/built && echo cached > deps/one
  artifacts: { paths: [out] }
  cache: { key: deps, paths: [deps] }
test:
  stage: test
  tags: [dev]
  script:
    - cat out/built deps/one
  cache: { key: deps, paths: [deps], policy: pull }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_clones_over_https_from_a_private_authority_runs_and_keeps_its_artifact_and_its_cache() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not tested: only root can give tasks a root file system of their own");
        return;
    }
    let moto = Moto::shared();
    moto.create_bucket("busybox-story").await;
    let (listener, front) = tls_proxy::listener().await;
    let root = busybox();
    let mut setup = Setup {
        gitlab: gitlab::Config { external_url: Some(format!("https://{front}")), ..Setup::default().gitlab },
        runners: vec![("dev", vec!["dev"])],
        runner: format!(
            "tls-ca-file = \"{CERTIFICATES}/authority.pem\"\n[runners.cache]\nType = \"s3\"\n[runners.cache.s3]\n\
             ServerAddress = \"{}\"\nInsecure = true\nBucketName = \"busybox-story\"\nBucketLocation = \"us-east-1\"\n\
             AccessKey = \"manager\"\nSecretKey = \"test\"",
            moto.address()
        ),
        ..Setup::default()
    };
    setup.fargate.root = Some(root.path().to_owned());
    setup.fargate.agent = static_agent();
    let mut world = World::without_manager(setup).await;
    tls_proxy::serve(listener, world.gitlab.address(), LetsIn::Everybody);
    world.start_manager().await;

    let repository = testkit::Repository::of(&[
        (".gitlab-ci.yml", PIPELINE),
        ("hello.txt", "hello from the repository\n"),
        ("run.sh", "#!/bin/sh\necho it is executable\n"),
    ]);
    repository.link("link", "hello.txt");
    for number in 1..=3 {
        repository.commit(&format!("Commit {number}"));
    }
    let pipeline = world.pipeline_of(repository).await;
    let status = world.finished(pipeline).await;
    let trace = world.trace("build");
    assert_eq!(status, Status::Success, "{trace}\n{}", world.trace("test"));
    for line in ["hello from the repository", "it is executable", "hello.txt", "Job succeeded"] {
        assert!(trace.contains(line), "{line:?} is not in {trace}");
    }
    assert!(trace.contains("This image has no git: the agent gets the sources by itself"), "{trace}");
    let test = world.trace("test");
    // Another task: nothing but the store can have brought it there.
    assert!(test.contains("built from ") && test.contains("cached\n"), "{test}");
    assert_eq!(world.job("build").artifacts.len(), 1);
    let fetches = world.gitlab.requests().iter().filter(|request| request.path.contains(".git/")).count();
    assert!(fetches >= 6, "two jobs fetch with three requests each");
    world.end().await;
}
