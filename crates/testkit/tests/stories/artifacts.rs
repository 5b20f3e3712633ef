//! Artifacts on a bad day: what takes several jobs, faults, or a server of its own kind.

use embedded::gitlab::{Config, Endpoint, Fault, Rule, Status};
use testkit::{Setup, World};

const TWO_JOBS: &str = "stages: [make, use]\n\
    make: { stage: make, tags: [dev], script: ['seq 1 200000 > numbers'], artifacts: { paths: [numbers] } }\n\
    use: { stage: use, tags: [dev], script: ['tail -n 1 numbers'] }\n";

fn with_object_storage() -> Setup {
    let mut setup = Setup::default();
    setup.gitlab.object_storage = true;
    setup
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_survives_what_may_pass() {
    let faults = [Fault::Dropped, Fault::AnswerLost, Fault::Status(500), Fault::Html];
    for fault in faults {
        let mut world = World::start(with_object_storage()).await;
        world.gitlab.faults().add(Rule::new(Endpoint::ArtifactUpload, fault.clone()));
        let pipeline = world.pipeline(TWO_JOBS).await;
        assert_eq!(world.finished(pipeline).await, Status::Success, "{fault:?}: {}", world.trace("make"));
        assert_eq!(world.job("make").artifacts.len(), 1, "{fault:?}");
        assert!(world.trace("use").contains("200000"), "{fault:?}");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_survives_what_may_pass_at_gitlab_and_at_its_object_store() {
    let places = [Endpoint::ArtifactDownload, Endpoint::ObjectStorage];
    for (endpoint, fault) in places.into_iter().flat_map(|place| [(place, Fault::Dropped), (place, Fault::Html)]) {
        let mut world = World::start(with_object_storage()).await;
        world.gitlab.faults().add(Rule::new(endpoint, fault.clone()));
        let pipeline = world.pipeline(TWO_JOBS).await;
        assert_eq!(world.finished(pipeline).await, Status::Success, "{endpoint:?} {fault:?}: {}", world.trace("use"));
        let trace = world.trace("use");
        assert!(
            trace.contains("WARNING: Downloading artifacts from coordinator...") && trace.contains("200000"),
            "{trace}"
        );
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_store_that_says_no_ends_the_download_with_its_own_words() {
    let mut world = World::start(with_object_storage()).await;
    world.gitlab.faults().add(Rule::new(Endpoint::ObjectStorage, Fault::Status(403)));
    let pipeline = world.pipeline(TWO_JOBS).await;
    assert_eq!(world.finished(pipeline).await, Status::Failed);
    let (job, trace) = (world.job("use"), world.trace("use"));
    assert_eq!(job.failure_reason.as_deref(), Some("script_failure"), "{trace}");
    assert!(trace.contains("ERROR: Downloading artifacts from coordinator... forbidden: 403 Forbidden"), "{trace}");
    let asked = world.gitlab.count_requests(|request| request.path.starts_with("/artifacts/"));
    assert_eq!(asked, 1, "nothing would change");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_over_the_servers_limit_fails_a_job_that_was_fine_and_no_other() {
    let gitlab = Config { artifact_limit: 50_000, ..Setup::default().gitlab };
    let mut world = World::start(Setup { gitlab, ..Setup::default() }).await;
    let pipeline = world
        .pipeline(
            "fine: { tags: [dev], script: ['head -c 200000 /dev/urandom > r'], artifacts: { paths: [r] } }\n\
             broken: { tags: [dev], script: ['head -c 200000 /dev/urandom > r', exit 5], artifacts: { paths: [r], when: always } }\n",
        )
        .await;
    assert_eq!(world.finished(pipeline).await, Status::Failed);
    for (name, code) in [("fine", 1), ("broken", 5)] {
        let (job, trace) = (world.job(name), world.trace(name));
        assert_eq!((job.status, job.exit_code), (Status::Failed, Some(code)), "{trace}");
        assert!(trace.contains("too large: 413 Payload Too Large"), "{trace}");
    }
    let uploads = world.gitlab.count_requests(|request| request.status == Some(413));
    assert_eq!(uploads, 2, "what is too large is sent once");
    world.end().await;
}
