use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use toml::de::DeTable;

use super::*;
use crate::config::tests::{keys_of, uncommented};

const EXAMPLE: &str = include_str!("../../../../../examples/ecs.toml");
/// Byte for byte what an installation of GitLab's driver has, as it is published.
const OF_THE_DRIVER: &str = include_str!("../../../../../examples/fargate-driver/ecs.toml");

const MINIMAL: &str = r#"[Fargate]
Cluster = "ci-dev"
Subnet = "subnet-1"
SecurityGroup = "sg-1"
TaskDefinition = "ci-dev"
"#;

fn usable(text: &str) -> EcsToml {
    super::read(Path::new("ecs.toml"), text).unwrap_or_else(|mistakes| panic!("{mistakes}\nin\n{text}"))
}

fn mistakes(text: &str) -> String {
    super::read(Path::new("ecs.toml"), text).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn the_file_of_gitlabs_driver_is_taken_as_it_is() {
    let loaded = usable(OF_THE_DRIVER);
    assert_eq!(loaded.warnings, []);
    assert_eq!(
        loaded.fargate,
        FargateConfig {
            cluster: "acme-gitlab-RUNNER-TAGS-cluster".into(),
            region: Some("eu-west-1".into()),
            subnets: vec!["SUBNET".into()],
            security_groups: vec!["SECURITY_GROUP_ID".into()],
            task_definition: "gitlab-runner-RUNNER_TAGS-task".into(),
            ssh_user: "root".into(),
            ssh_port: 22,
            ..FargateConfig::default()
        }
    );
    assert_eq!((loaded.log_level, loaded.log_format, loaded.log_file), (Some(Level::INFO), LogFormat::Text, None));
    assert_eq!(loaded.metadata_directory, Some("/opt/gitlab-runner/metadata".into()));
}

#[test]
fn the_smallest_file_gets_the_defaults() {
    let loaded = usable(MINIMAL);
    assert_eq!((loaded.log_level, loaded.log_format, &loaded.log_file), (None, LogFormat::Text, &None));
    assert_eq!((&loaded.metadata_directory, &loaded.allowed_roles), (&None, &None));
    assert_eq!((loaded.start_timeout, loaded.connect_timeout), (START_TIMEOUT, CONNECT_TIMEOUT));
    assert_eq!(loaded.fargate.allowed_task_definitions, None, "GitLab's driver lets a job ask for every one");
    assert_eq!((loaded.fargate.ssh_user.as_str(), loaded.fargate.ssh_port), ("root", 22));
}

#[test]
fn every_key_of_the_example_is_read_and_every_key_that_is_read_stands_in_it() {
    assert_eq!(usable(EXAMPLE).warnings, []);
    let text = uncommented(EXAMPLE);
    usable(&text);
    let mut report = Report::new(Path::new("ecs.toml"), &text, &ECS_TOML);
    read_into(&mut report, &text).unwrap();
    let mut in_example = BTreeSet::new();
    keys_of(DeTable::parse(&text).unwrap().get_ref(), "", &mut in_example);
    assert_eq!(report.asked, in_example);
}

/// A value that is read but thrown away would be the default in spite of the file.
#[test]
fn every_value_of_the_file_arrives() {
    let text = r#"
LogLevel = "warning"
LogFormat = "json"
LogFile = "/log"
[Fargate]
Cluster = "c"
Region = "r"
Subnet = "s1"
Subnets = ["s2", "s1", "s3"]
SecurityGroup = "g1"
SecurityGroups = ["g1", "g2"]
TaskDefinition = "t"
AllowedTaskDefinitions = ["t-*"]
AllowedRoles = ["arn:aws:iam::111122223333:role/ci-*"]
EnablePublicIP = true
UsePublicIP = false
PlatformVersion = "1.4.0"
CapacityProviders = [{ Name = "FARGATE_SPOT", Weight = 3 }, { Name = "FARGATE", Weight = 0, Base = 2 }]
EnableExecuteCommand = true
PropagateTags = true
StartTimeout = "5m"
[TaskMetadata]
Directory = "/metadata"
[SSH]
Username = "ci"
Port = 2222
ConnectTimeout = "3s"
"#;
    insta::assert_debug_snapshot!(usable(text));
}

#[test]
fn many_mistakes_are_told_at_once_and_by_the_files_own_names() {
    let text = r#"LogLevel = "loud"
LogFormat = "runner"
LogFiles = "/log"
[Fargate]
Cluster = ""
Region = 7
Subnets = []
SecurityGroups = "sg-1"
EnablePublicIP = "no"
UsePublicIP = true
CapacityProvider = ["FARGATE"]
CapacityProviders = [{ Weight = 0 }]
AllowedTaskDefinitions = ["ci-*", "../ci", "arn:aws:ecs:ci-*"]
AllowedRoles = ["ci-*"]
StartTimeout = 900
Memory = 512
[TaskMetadata]
Directory = ["/a"]
Dir = "/b"
[SSH]
User = "ci"
Port = 70000
"#;
    insta::assert_snapshot!(mistakes(text));
}

#[test]
fn absent_tables_are_told_once() {
    let told = ["LogLevel = \"info\"\n", "Fargate = 1\nSSH = []\nTaskMetadata = \"/x\"\n", "[Fargate]\n", "[Fargate\n"];
    insta::assert_snapshot!(told.map(mistakes).join("\n\n"));
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let told = load(Path::new("/nowhere/ecs.toml")).unwrap_err().to_string();
    assert!(told.starts_with("/nowhere/ecs.toml: cannot be read: No such file"), "{told}");
}

#[test]
fn a_file_that_every_user_can_change_is_taken_with_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ecs.toml");
    fs::write(&file, MINIMAL).unwrap();
    for (mode, warnings) in [(0o600, 0), (0o644, 0), (0o664, 0), (0o666, 1)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(load(&file).unwrap().warnings.len(), warnings, "mode {mode:o}");
    }
}

/// The driver's TOML library takes a key in any case, and so its words.
#[test]
fn the_case_of_a_key_does_not_count_but_a_key_stands_once() {
    let text = MINIMAL.replace("Cluster", "cluster").replace("[Fargate]", "LOGLEVEL = \"INFO\"\n[fargate]");
    let loaded = usable(&text);
    assert_eq!((loaded.fargate.cluster.as_str(), loaded.log_level), ("ci-dev", Some(Level::INFO)));
    assert_eq!(loaded.warnings, []);
    assert_eq!(
        mistakes(&format!("{MINIMAL}cluster = \"other\"\n")),
        "ecs.toml:6: `Fargate.cluster` is not a key of ecs.toml: did you mean `Cluster`?"
    );
}

#[test]
fn tasks_are_reached_by_their_private_address_unless_asked_otherwise() {
    for (keys, expected) in [
        ("", Some((false, false))),
        ("EnablePublicIP = false", Some((false, false))),
        ("EnablePublicIP = true", Some((true, false))),
        ("EnablePublicIP = true\nUsePublicIP = false", Some((true, false))),
        ("EnablePublicIP = true\nUsePublicIP = true", Some((true, true))),
        ("UsePublicIP = false", Some((false, false))),
        ("UsePublicIP = true", None),
    ] {
        let loaded = super::read(Path::new("ecs.toml"), &format!("{MINIMAL}{keys}\n")).ok();
        let found = loaded.map(|loaded| (loaded.fargate.assign_public_ip, loaded.fargate.use_public_ip));
        assert_eq!(found, expected, "{keys}");
    }
}

#[test]
fn a_port_below_one_is_the_usual_one() {
    for (port, expected) in [(-1, Some(22)), (0, Some(22)), (1, Some(1)), (65535, Some(65535)), (65536, None)] {
        let loaded = super::read(Path::new("ecs.toml"), &format!("{MINIMAL}[SSH]\nPort = {port}\n"));
        assert_eq!(loaded.ok().map(|loaded| loaded.fargate.ssh_port), expected, "{port}");
    }
}

#[test]
fn a_list_of_names_is_a_list_of_providers() {
    let names = usable(&format!("{MINIMAL}CapacityProviders = [\"FARGATE_SPOT\", \"FARGATE\"]\n"));
    let tables =
        "[[Fargate.CapacityProviders]]\nName = \"FARGATE_SPOT\"\n[[Fargate.CapacityProviders]]\nname = \"FARGATE\"\n";
    assert_eq!(names.fargate.capacity_providers, usable(&format!("{MINIMAL}{tables}")).fargate.capacity_providers);
    assert_eq!(
        names.fargate.capacity_providers[0],
        CapacityProvider { name: "FARGATE_SPOT".into(), weight: 1, base: 0 }
    );
}

proptest! {
    /// Whatever is cut off or written into it, a file has a mistake with a line of it, or can be used.
    #[test]
    fn a_damaged_file_is_answered(cut in 0..EXAMPLE.len(), noise in "[\\PC\n\"=\\[\\]]{0,12}", rest in any::<bool>()) {
        let text = uncommented(EXAMPLE);
        let at = (0..=cut.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        let text = format!("{}{noise}{}", &text[..at], if rest { &text[at..] } else { "" });
        if let Err(mistakes) = super::read(Path::new("ecs.toml"), &text) {
            let lines = text.lines().count().max(1);
            prop_assert!(!mistakes.0.is_empty());
            prop_assert!(mistakes.0.iter().all(|mistake| mistake.line.unwrap() <= lines + 1), "{mistakes}");
        }
    }
}
