//! A task in its own mount and process namespaces: it sees a root file system copy-on-write, only its own processes,
//! and this machine's network. Its first process is number 1 there: when that ends the kernel kills all others, and with the
//! last process the mounts are gone. Nothing is written to this machine's file systems.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd;
use tempfile::TempDir;
use tokio::process::Command;

use super::images::Image;

/// Where a task of the agent's image sees the agent.
pub(super) const AGENT_INSIDE: &str = "/usr/local/bin/staffetta-agent";

/// File systems that hold files. Others (proc, cgroup, tmpfs, …) a task gets anew or not at all.
const ON_DISK: [&str; 10] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay", "virtiofs", "9p"];
/// A task has its own of these, or this machine's as they are.
const NOT_COPIED: [&str; 5] = ["/proc", "/sys", "/dev", "/tmp", "/run"];

/// The recipe for the mounts of a task.
#[derive(Debug)]
pub(super) struct Views {
    /// An empty directory, the only thing on this machine's disk: each task mounts its own file systems on it.
    _scaffold: TempDir,
    for_agent: Arc<[Step]>,
    for_sshd: Arc<[Step]>,
}

/// One step between fork and exec. No memory may be allocated there, so all is laid out before.
#[derive(Debug)]
struct Step {
    act: Act,
    /// Printed by the child if the step fails: `exec`'s own report carries only a number.
    complaint: String,
}

#[derive(Debug)]
enum Act {
    Mount { source: CString, target: CString, kind: CString, flags: MsFlags, data: CString },
    Directory(CString, Mode),
    File(CString),
    Remove(CString),
    Pivot(CString),
}

impl Views {
    /// Plans the view of `root` (`None`: this machine's) in which `agent` is the agent.
    pub(super) fn plan(root: Option<&Path>, agent: &Path) -> io::Result<Views> {
        let scaffold = tempfile::Builder::new().prefix("staffetta-fargate-").tempdir()?;
        let build = |image| plan(scaffold.path(), root, agent, image).map(Arc::from);
        Ok(Views { for_agent: build(Image::Agent)?, for_sshd: build(Image::Sshd)?, _scaffold: scaffold })
    }

    /// Makes `command` start inside a new view. It must be forked into a new process namespace.
    pub(super) fn enter(&self, command: &mut Command, image: Image, directory: CString) {
        let steps = match image {
            Image::Agent => self.for_agent.clone(),
            Image::Sshd => self.for_sshd.clone(),
        };
        let prepare = move || {
            unistd::setsid()?;
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            unshare(CloneFlags::CLONE_NEWNS)?;
            for step in &*steps {
                step.act.perform().inspect_err(|_| complain(&step.complaint))?;
            }
            unistd::chdir(&*directory).inspect_err(|_| complain("cannot enter the working directory"))?;
            Ok(())
        };
        // SAFETY: between fork and exec only system calls on memory that was laid out before.
        unsafe { command.pre_exec(prepare) };
    }
}

impl Act {
    fn perform(&self) -> nix::Result<()> {
        match self {
            Act::Mount { source, target, kind, flags, data } => {
                mount(Some(&**source), &**target, Some(&**kind), *flags, Some(&**data))
            }
            Act::Directory(path, mode) => match unistd::mkdir(&**path, *mode) {
                Err(Errno::EEXIST) => Ok(()),
                made => made,
            },
            Act::File(path) => {
                use nix::fcntl::{OFlag, open};
                open(&**path, OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::from_bits_truncate(0o644))?;
                Ok(())
            }
            Act::Remove(path) => match unistd::unlink(&**path) {
                Err(Errno::ENOENT) => Ok(()),
                removed => removed,
            },
            Act::Pivot(new_root) => {
                unistd::chdir(&**new_root)?;
                // Both on the same place: the old root lies on top of the new one until it is unmounted.
                unistd::pivot_root(c".", c".")?;
                umount2(c".", MntFlags::MNT_DETACH)?;
                unistd::chdir(c"/")
            }
        }
    }
}

fn complain(what: &str) {
    // SAFETY: write(2) of a valid buffer to standard error, which is the task's log.
    unsafe { libc::write(libc::STDERR_FILENO, what.as_ptr().cast(), what.len()) };
}

/// Collects steps; paths are absolute inside the new root unless said otherwise.
struct Planner {
    new_root: PathBuf,
    steps: Vec<Step>,
}

fn plan(scaffold: &Path, root: Option<&Path>, agent: &Path, image: Image) -> io::Result<Vec<Step>> {
    let lower = root.unwrap_or(Path::new("/")).canonicalize()?;
    let mut planner = Planner { new_root: scaffold.join("root"), steps: Vec::new() };
    // What is mounted here must not appear in this machine's own mount table.
    planner.mount_outside("", Path::new("/"), "", MsFlags::MS_REC | MsFlags::MS_PRIVATE, "")?;
    // No limit of size or number: the default of half the memory would fail jobs for no reason of theirs.
    planner.mount_outside("tmpfs", scaffold, "tmpfs", MsFlags::empty(), "size=0,nr_inodes=0,mode=755")?;
    let new_root = planner.new_root.clone();
    planner.directory_outside(&new_root, 0o755)?;
    planner.overlay(scaffold, 0, &lower, Path::new("/"))?;

    if root.is_none() {
        let (directories, files) = disks_below_root(&fs::read_to_string("/proc/self/mountinfo")?);
        for (number, directory) in directories.iter().enumerate() {
            planner.overlay(scaffold, number + 1, directory, directory)?;
        }
        for file in files {
            planner.bind(&file, &file)?;
        }
    }

    for (path, mode) in [("/dev", 0o755), ("/proc", 0o555), ("/sys", 0o555), ("/tmp", 0o1777), ("/run", 0o755)] {
        planner.directory(path, mode)?;
    }
    planner.bind(Path::new("/dev"), Path::new("/dev"))?;
    if Path::new("/dev/shm").is_dir() {
        planner.mount("tmpfs", "/dev/shm", "tmpfs", MsFlags::empty(), "mode=1777")?;
    }
    planner.mount("proc", "/proc", "proc", MsFlags::empty(), "")?;
    planner.bind(Path::new("/sys"), Path::new("/sys"))?;
    planner.mount("", "/sys", "", MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, "")?;
    planner.mount("tmpfs", "/tmp", "tmpfs", MsFlags::empty(), "size=0,nr_inodes=0,mode=1777")?;
    planner.mount("tmpfs", "/run", "tmpfs", MsFlags::empty(), "mode=755")?;

    // Often a link into /run, or a mount of its own.
    if let Ok(resolv_conf) = Path::new("/etc/resolv.conf").canonicalize() {
        planner.directory("/etc", 0o755)?;
        planner.replace_by(&resolv_conf, "/etc/resolv.conf")?;
    }
    match image {
        Image::Agent => {
            planner.directory("/usr/local/bin", 0o755)?;
            planner.replace_by(&agent.canonicalize()?, AGENT_INSIDE)?;
        }
        // A real image would not have it either, whatever is installed on this machine.
        Image::Sshd => planner.remove(AGENT_INSIDE)?,
    }
    planner.step("change the root".into(), Act::Pivot(c_string(&new_root)?));
    Ok(planner.steps)
}

impl Planner {
    fn inside(&self, path: &Path) -> PathBuf {
        self.new_root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn step(&mut self, what: String, act: Act) {
        self.steps.push(Step { act, complaint: format!("cannot {what}") });
    }

    fn mount_outside(&mut self, source: &str, target: &Path, kind: &str, flags: MsFlags, data: &str) -> io::Result<()> {
        let what = format!("mount {kind} {} on {}", Path::new(source).display(), target.display());
        let (source, kind, data) = (c_string(source)?, c_string(kind)?, c_string(data)?);
        self.step(what, Act::Mount { source, target: c_string(target)?, kind, flags, data });
        Ok(())
    }

    fn mount(&mut self, source: &str, target: &str, kind: &str, flags: MsFlags, data: &str) -> io::Result<()> {
        self.mount_outside(source, &self.inside(Path::new(target)), kind, flags, data)
    }

    fn directory_outside(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        let act = Act::Directory(c_string(path)?, Mode::from_bits_truncate(mode));
        self.step(format!("make {}", path.display()), act);
        Ok(())
    }

    /// With its parents.
    fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
        let mut ancestors: Vec<&Path> = Path::new(path).ancestors().filter(|one| *one != Path::new("/")).collect();
        ancestors.reverse();
        ancestors.iter().try_for_each(|one| self.directory_outside(&self.inside(one), mode))
    }

    /// `lower` copy-on-write at `target`, changes in memory.
    fn overlay(&mut self, scaffold: &Path, number: usize, lower: &Path, target: &Path) -> io::Result<()> {
        let (upper, work) = (scaffold.join(format!("upper{number}")), scaffold.join(format!("work{number}")));
        self.directory_outside(&upper, 0o755)?;
        self.directory_outside(&work, 0o755)?;
        let data = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        self.mount_outside("overlay", &self.inside(target), "overlay", MsFlags::empty(), &data)
    }

    fn bind(&mut self, source: &Path, target: &Path) -> io::Result<()> {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        self.mount_outside(&source.to_string_lossy(), &self.inside(target), "", flags, "")
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        let inside = self.inside(Path::new(path));
        self.step(format!("remove {path}"), Act::Remove(c_string(&inside)?));
        Ok(())
    }

    /// The file `source` of this machine, read-only, in place of whatever stands at `target`.
    fn replace_by(&mut self, source: &Path, target: &str) -> io::Result<()> {
        self.remove(target)?;
        let inside = self.inside(Path::new(target));
        self.step(format!("make {target}"), Act::File(c_string(&inside)?));
        self.bind(source, Path::new(target))?;
        self.mount("", target, "", MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, "")
    }
}

/// The directories and single files below the root that lie on file systems of their own: an overlay of the root
/// shows only the empty places under them. Names that a mount option could not hold are left out.
fn disks_below_root(mountinfo: &str) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let mut points: Vec<PathBuf> = mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let point = mount.split(' ').nth(4)?;
            let usable = point != "/" && !point.contains(['\\', ':', ',']);
            let copied = !NOT_COPIED.iter().any(|path| Path::new(point).starts_with(path));
            let on_disk = ON_DISK.contains(&file_system.split(' ').next()?);
            (usable && copied && on_disk).then(|| PathBuf::from(point))
        })
        .collect();
    points.sort();
    points.dedup();
    points.retain(|point| point.exists());
    points.into_iter().partition(|point| point.is_dir())
}

fn c_string(value: impl AsRef<std::ffi::OsStr>) -> io::Result<CString> {
    CString::new(value.as_ref().as_bytes()).map_err(io::Error::other)
}

/// The working directory that a container definition asks for.
pub(super) fn working_directory(asked: Option<&str>) -> io::Result<CString> {
    asked.map_or(Ok(CStr::to_owned(c"/")), c_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_disks_below_the_root_are_copied() {
        let mountinfo = "\
21 1 254:0 / / rw - ext4 /dev/vda rw
22 21 0:5 / /dev rw - devtmpfs devtmpfs rw
23 21 254:1 / /usr rw shared:1 - ext4 /dev/vdb rw
24 21 254:2 / /with\\040space rw - ext4 /dev/vdc rw
25 21 254:3 /hosts /etc/hosts rw - ext4 /dev/vda rw
26 21 254:3 / /tmp/disk rw - ext4 /dev/vdd rw
27 21 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup rw
";
        let (directories, files) = disks_below_root(mountinfo);
        assert_eq!(directories, [Path::new("/usr")]);
        assert_eq!(files, [Path::new("/etc/hosts")]);
    }
}
