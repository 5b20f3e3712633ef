//! The client of GitLab's runner API: registration, the request for jobs, the trace, the job's
//! state, artifacts. Protocol sections 0 to 5; section numbers in this crate's docs mean that text.

mod artifacts;
mod client;
mod elsewhere;
mod git_http;
mod health;
mod info;
mod look;
mod proxies;
mod request;
mod retry;
mod runners;
mod tls;
mod trace;
mod update;

pub use artifacts::{ArtifactUpload, Content, DownloadError, Downloaded, UploadError};
pub use client::{CONNECTION_MAX_AGE, CallError, Called, Client, ClientConfig, ClientError};
pub use elsewhere::elsewhere;
pub use git_http::{GitAnswer, GitRemote};
pub use health::{AdaptiveConcurrency, Asked, Health};
pub use info::Info;
pub use look::{Seen, Unreached};
pub use proxies::Proxies;
pub use request::{AssignedJob, JobAnswer, JobReply, JobRequest};
pub use runners::{Known, Registered, Registration, Renewed, RunnerDetails, RunnerScope, Verified};
pub use tls::usual_roots;
pub use trace::{JobAccess, JobTrace, ReportError, Reported};
pub use update::{JobState, JobUpdate, PatchAnswer, PatchResult, Signal, TraceOutput, UpdateAnswer, UpdateResult};
