//! The directories of a job, and what every stage finds in its environment (protocol 7.2.2, 7.2.3).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use job::secret::ExposeSecret;
use job::variables::Variables;
use nix::fcntl::OFlag;

/// The names by which manager and agent speak to each other; no business of the job's.
const OURS: [&str; 7] = [
    job::task::SSH_PUBLIC_KEY,
    job::task::NONCE,
    job::task::MANAGER,
    job::task::JOB,
    job::task::DEADLINE,
    job::task::LISTEN,
    job::task::ROOT,
];

/// A file of variables is small; a script may make it anything.
const MOST_EXPORTED: u64 = 1024 * 1024;

/// Where programs are found if the image says nothing.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Environment of a process.
pub type Environment = BTreeMap<OsString, OsString>;

#[derive(Debug, Clone)]
pub struct Workspace {
    pub builds: PathBuf,
    pub project: PathBuf,
    /// Beside the project.
    pub temporary: PathBuf,
    base: Environment,
}

impl Workspace {
    /// `environment` is that of the container: the job inherits it.
    pub fn new(
        variables: &Variables,
        builds_dir: &str,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut base: Environment = environment.collect();
        // A shell trusts PWD if it can, and it would be ours.
        for name in OURS.iter().chain(&["PWD", "OLDPWD"]) {
            base.remove(&OsString::from(*name));
        }
        base.entry("PATH".into()).or_insert_with(|| PATH.into());
        base.entry("HOME".into())
            .or_insert_with(|| if nix::unistd::geteuid().is_root() { "/root" } else { "/" }.into());
        Self {
            builds: builds_dir.into(),
            project: variables.project_dir().into(),
            temporary: variables.temporary_dir().into(),
            base,
        }
    }

    /// Makes the directories. What stands in the place of the temporary one is somebody else's: an earlier job's, or of
    /// whoever waits for this job's secrets there.
    pub fn prepare(&self) -> io::Result<()> {
        fs::create_dir_all(&self.builds)?;
        if let Some(parent) = self.temporary.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::symlink_metadata(&self.temporary) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&self.temporary)?,
            Ok(_) => fs::remove_file(&self.temporary)?,
            Err(_) => {}
        }
        self.make_temporary()
    }

    /// For this user alone, like what is written into it: GitLab's runner lets everybody read file variables, and ssh then
    /// refuses them as keys.
    fn make_temporary(&self) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(&self.temporary)
    }

    /// `GITLAB_ENV`: lines that a script appends are exported to all later stages.
    pub fn exported(&self) -> PathBuf {
        self.temporary.join("gitlab_runner_env")
    }

    /// Writes the file variables (scripts may have changed them) and says what the stage's processes see.
    pub fn environment(&self, variables: &Variables, status: &str) -> io::Result<Environment> {
        // A script may have removed it.
        if !self.temporary.exists() {
            self.make_temporary()?;
        }
        for (path, content) in variables.files() {
            write_secret(Path::new(&path), content.expose_secret().as_bytes())?;
        }
        let exported = self.exported();
        // A script may have put a pipe here, and opening that would wait for ever.
        if fs::symlink_metadata(&exported).is_ok_and(|found| !found.is_file()) {
            fs::remove_file(&exported)?;
        }
        OpenOptions::new().create(true).append(true).mode(0o600).open(&exported)?;
        let mut lines = Vec::new();
        File::open(&exported)?.take(MOST_EXPORTED + 1).read_to_end(&mut lines)?;
        if lines.len() as u64 > MOST_EXPORTED {
            return Err(io::Error::other(format!("the file $GITLAB_ENV is larger than {MOST_EXPORTED} bytes")));
        }

        let mut environment = self.base.clone();
        environment.extend(variables.exports(status).into_iter().map(|(key, value)| (key.into(), value.into())));
        environment.insert("GITLAB_ENV".into(), exported.into());
        environment.extend(lines.split(|byte| *byte == b'\n').filter_map(assignment));
        Ok(environment)
    }

    /// Removes what must not stay: file variables, git's credentials, exported variables.
    pub fn clean_up(&self, variables: &Variables) -> io::Result<()> {
        for path in variables.files().into_keys() {
            remove_if_present(Path::new(&path))?;
        }
        match fs::remove_dir_all(&self.temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The value of a variable in this environment.
pub fn variable(environment: &Environment, name: &str) -> Option<String> {
    Some(environment.get(OsStr::new(name))?.to_string_lossy().into_owned())
}

/// Opens a regular file for reading, and nothing else: a pipe would be waited for, and a device may never end.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// One line of the file: white space around it does not count. What no process can be given is left out.
fn assignment(line: &[u8]) -> Option<(OsString, OsString)> {
    let line = line.trim_ascii();
    let equals = line.iter().position(|byte| *byte == b'=').filter(|equals| *equals > 0)?;
    let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    (!line.contains(&0)).then(|| (text(&line[..equals]), text(&line[equals + 1..])))
}

/// A file that only this user can read. Whatever stood there before is replaced, not followed.
pub fn write_secret(path: &Path, content: &[u8]) -> io::Result<()> {
    remove_if_present(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)
}

pub fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::fixtures;

    fn world(variables: serde_json::Value) -> (tempfile::TempDir, Workspace, Variables) {
        let dir = tempfile::tempdir().expect("a directory");
        let builds = dir.path().to_str().expect("UTF-8").to_owned();
        let payload = fixtures::payload(serde_json::json!({"variables": variables}));
        let variables = Variables::resolve(&payload, &fixtures::runner(&builds), &fixtures::gitlab(), &[]);
        let environment = [
            ("HOME", "/home/me"),
            ("STAFFETTA_NONCE", "n"),
            ("STAFFETTA_DEADLINE", "1"),
            ("PWD", "/x"),
            ("A", "image"),
        ];
        let environment = environment.map(|(key, value)| (key.into(), value.into()));
        let workspace = Workspace::new(&variables, &builds, environment.into_iter());
        workspace.prepare().expect("directories");
        (dir, workspace, variables)
    }

    fn get<'a>(environment: &'a Environment, key: &str) -> Option<&'a str> {
        environment.get(&OsString::from(key)).and_then(|value| value.to_str())
    }

    #[test]
    fn a_stage_sees_the_images_environment_under_the_jobs_variables() {
        let (_dir, workspace, variables) = world(serde_json::json!([{"key": "A", "value": "job"}]));
        let environment = workspace.environment(&variables, "failed").expect("an environment");
        assert_eq!(get(&environment, "HOME"), Some("/home/me"));
        assert_eq!(get(&environment, "A"), Some("job"));
        assert_eq!(get(&environment, "CI_JOB_STATUS"), Some("failed"));
        assert_eq!(get(&environment, "PATH"), Some(PATH));
        assert_eq!(get(&environment, "STAFFETTA_NONCE"), None);
        assert_eq!(get(&environment, "PWD"), None);
    }

    #[test]
    fn lines_of_gitlab_env_reach_later_stages() {
        let (_dir, workspace, variables) = world(serde_json::json!([{"key": "A", "value": "job"}]));
        fs::write(workspace.exported(), "A=later\n  B=x=y \r\nno assignment\n=z\nN=\0\nLAST=1").expect("the file");
        let environment = workspace.environment(&variables, "running").expect("an environment");
        assert_eq!((get(&environment, "A"), get(&environment, "B")), (Some("later"), Some("x=y")));
        assert_eq!((get(&environment, "LAST"), get(&environment, ""), get(&environment, "N")), (Some("1"), None, None));
        workspace.prepare().expect("again");
        let environment = workspace.environment(&variables, "running").expect("an environment");
        assert_eq!(get(&environment, "B"), None);
    }

    #[test]
    fn file_variables_are_readable_by_their_user_only_and_gone_in_the_end() {
        let (_dir, workspace, variables) = world(serde_json::json!([{"key": "F", "value": "secret\n", "file": true}]));
        let environment = workspace.environment(&variables, "running").expect("an environment");
        let path = PathBuf::from(get(&environment, "F").expect("a path"));
        assert_eq!(fs::read_to_string(&path).expect("the file"), "secret\n");
        assert_eq!(path.metadata().expect("the file").permissions().mode() & 0o777, 0o600);
        assert_eq!(workspace.temporary.metadata().expect("it").permissions().mode() & 0o777, 0o700);
        // A script may have put something else in its place.
        fs::remove_file(&path).and_then(|()| std::os::unix::fs::symlink("/dev/null", &path)).expect("a link");
        workspace.environment(&variables, "running").expect("an environment");
        assert_eq!(fs::read_to_string(&path).expect("the file"), "secret\n");
        fs::remove_dir_all(&workspace.temporary).expect("a script may do this");
        workspace.environment(&variables, "running").expect("an environment");
        assert_eq!(fs::read_to_string(&path).expect("the file"), "secret\n");
        workspace.clean_up(&variables).expect("a clean-up");
        assert!(!workspace.temporary.exists());
    }

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().expect("a directory");
        let (pipe, link) = (dir.path().join("pipe"), dir.path().join("link"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        std::os::unix::fs::symlink("/dev/zero", &link).expect("a link");
        for path in [&pipe, &link, dir.path()] {
            assert_eq!(open_regular(path).expect_err("no file").to_string(), "it is not a regular file");
        }
        assert_eq!(open_regular(&dir.path().join("none")).expect_err("none").kind(), io::ErrorKind::NotFound);
        fs::write(dir.path().join("file"), "x").expect("a file");
        assert_eq!(io::read_to_string(open_regular(&dir.path().join("file")).expect("it")).expect("it"), "x");
    }

    #[test]
    fn what_waits_in_the_place_of_the_temporary_directory_gets_nothing() {
        let (dir, workspace, _) = world(serde_json::json!([]));
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).expect("a directory");
        fs::remove_dir_all(&workspace.temporary).expect("a removal");
        std::os::unix::fs::symlink(&elsewhere, &workspace.temporary).expect("a link");
        workspace.prepare().expect("directories");
        assert!(!workspace.temporary.is_symlink() && elsewhere.is_dir());

        fs::set_permissions(&workspace.temporary, fs::Permissions::from_mode(0o777)).expect("a mode");
        fs::write(workspace.temporary.join("left"), "by an earlier job").expect("a file");
        workspace.prepare().expect("directories");
        let mode = workspace.temporary.metadata().expect("it").permissions().mode();
        assert_eq!((mode & 0o777, workspace.temporary.join("left").exists()), (0o700, false));
    }
}
