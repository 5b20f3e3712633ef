//! `staffetta deploy` and `staffetta doctor` as an operator runs them, against emulators of AWS and the embedded GitLab.

mod deploy_faults;
mod deploy_texts;
mod doctor_aws;
mod doctor_deployed;
mod doctor_gitlab;
mod doctor_manager_service;
mod doctor_network;
mod doctor_permissions;
mod doctor_shared;
mod doctor_trial_run;
mod emulator_gaps;
mod engine;
mod findings;
mod healthy_world;
mod init;
mod manual;
mod operator;
mod other_accounts;
mod ownership;
mod read_back;
mod three_commands;
mod tokens;

use testkit::{Ministack, Moto};

use crate::operator::{ACCOUNT, Operator};

#[tokio::test]
async fn both_emulators_are_on_loopback_and_have_a_network_in_the_same_account() {
    let (moto, ministack) = (Moto::start(), Ministack::start());
    for url in [moto.url(), ministack.url()] {
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
        let operator = Operator::at(url);
        assert_eq!(operator.default_network().await.subnets.len(), 2, "{url}");
        let identity = operator.aws("sts get-caller-identity").await;
        assert_eq!(identity["Account"], ACCOUNT, "{url}");
    }
}
