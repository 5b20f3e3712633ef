//! Small real servers of the two protocols that Staffetta stands between, on loopback: ECS Fargate and GitLab.
//!
//! They carry `staffetta local`, every test and every benchmark, and serve any other client of the two protocols.
//! Neither knows the other, nor the code that talks to them.

pub mod fargate;
pub mod gitlab;
