//! An operator: a folder to work in, credentials, and the programs that are run there.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use testkit::{PATIENCE, program};
use tokio::process::Command;
use tokio::time::timeout;

/// moto's account, and ministack's unless the access key id is another.
pub const ACCOUNT: &str = "123456789012";
pub const REGION: &str = "us-east-1";

pub struct Operator {
    folder: TempDir,
    endpoint: String,
    /// Who calls AWS, from the AWS CLI and from our programs: none leaves it to each of them.
    access_key: Option<String>,
}

/// A VPC and its subnets.
pub struct Network {
    pub vpc: String,
    pub subnets: Vec<String>,
}

/// What a program said, and its exit code.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Operator {
    /// With an empty folder; all calls of AWS go to `endpoint`.
    pub fn at(endpoint: &str) -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), endpoint: endpoint.to_owned(), access_key: None }
    }

    /// The same, in an account of ministack.
    pub fn in_account(endpoint: &str, account: &str) -> Self {
        Self { access_key: Some(account.to_owned()), ..Self::at(endpoint) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).expect("a file");
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// `staffetta`, with nobody at a terminal. Its access key id is its first argument, by which a recorder at the wire
    /// knows who calls.
    pub async fn staffetta(&self, arguments: &[&str]) -> Said {
        self.staffetta_with(arguments, &[]).await
    }

    /// The same, with more of an environment.
    pub async fn staffetta_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Said {
        let key = self.access_key.as_deref().unwrap_or(arguments[0]);
        let mut command = self.command(&program("staffetta"), key);
        command.args(arguments).envs(variables.iter().copied());
        said(command).await
    }

    /// The AWS CLI as `peer`: what it answers, null for nothing. `arguments` are separated by spaces.
    pub async fn aws(&self, arguments: &str) -> Value {
        let said = self.aws_says(arguments).await;
        assert_eq!(said.code, Some(0), "aws {arguments}: {}", said.stderr);
        if said.stdout.trim().is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {}", said.stdout))
    }

    /// The same, where it may refuse.
    pub async fn aws_says(&self, arguments: &str) -> Said {
        let aws = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin/aws");
        assert!(aws.is_file(), "the AWS CLI is missing: run scripts/install-aws-cli first");
        let mut command = self.command(&aws, self.access_key.as_deref().unwrap_or("peer"));
        command.args(["--output", "json"]).args(arguments.split_whitespace());
        said(command).await
    }

    /// The VPC that is there from the start.
    pub async fn default_network(&self) -> Network {
        let subnets = self.aws("ec2 describe-subnets --filters Name=default-for-az,Values=true").await;
        let subnets = subnets["Subnets"].as_array().expect("subnets");
        let text = |value: &Value| value.as_str().expect("an id").to_owned();
        let vpc = text(&subnets[0]["VpcId"]);
        Network { vpc, subnets: subnets.iter().take(2).map(|subnet| text(&subnet["SubnetId"])).collect() }
    }

    /// The same, with a way to the internet.
    pub async fn public_network(&self) -> Network {
        let network = self.default_network().await;
        let vpc = &network.vpc;
        let gateway = self.aws("ec2 create-internet-gateway").await;
        let gateway = gateway["InternetGateway"]["InternetGatewayId"].as_str().expect("an id").to_owned();
        self.aws(&format!("ec2 attach-internet-gateway --internet-gateway-id {gateway} --vpc-id {vpc}")).await;
        let tables = self.aws(&format!("ec2 describe-route-tables --filters Name=vpc-id,Values={vpc}")).await;
        let table = tables["RouteTables"][0]["RouteTableId"].as_str().expect("an id").to_owned();
        let route = format!("--route-table-id {table} --destination-cidr-block 0.0.0.0/0 --gateway-id {gateway}");
        self.aws(&format!("ec2 create-route {route}")).await;
        network
    }

    fn command(&self, program: &Path, access_key: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // No settings or credentials of whoever runs the tests.
            .env("HOME", self.folder.path())
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_ACCESS_KEY_ID", access_key)
            // That of every account of ministack; moto takes any.
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_REGION", REGION)
            .env("AWS_DEFAULT_REGION", REGION)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}

async fn said(mut command: Command) -> Said {
    let output = timeout(PATIENCE, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("it does not end: {command:?}")).expect("a program that starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Said {
    /// What it said, which must have gone well.
    #[track_caller]
    pub fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self.stdout
    }
}
