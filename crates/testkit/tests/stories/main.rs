//! The journey of a job, told as stories: the real manager, AWS SDK, SSH and agent against the embedded servers.
//! Each story ends with `World::end`, which fails if a task is left.

mod article;
mod artifacts;
mod busybox;
mod cache;
mod cancel;
mod chosen_task;
mod command_line;
mod driver;
mod driver_faults;
mod driver_killed;
mod ecs_faults;
mod generated_config;
mod gitlab_faults;
mod journey;
mod lost_tasks;
mod metrics;
mod official_runner;
mod openbao;
mod presign;
mod registration;
mod restart;
mod rotation;
mod scripts;
mod secrets;
mod settings;
mod shared_manager;
mod tls_proxy;
