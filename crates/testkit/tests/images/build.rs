//! The from-scratch images, built once for all tests: what would be pushed to a registry, and a root unpacked from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// In the environment of the build, as a careless user may have it. No image may have it.
pub const CANARY: &str = "glrt-canary-in-the-environment-of-the-build";

pub struct Image {
    /// The files of all layers, and what every container runtime adds.
    pub root: PathBuf,
    /// As the layers have them: `drwxr-xr-x 65532/65532 etc/gitlab-runner/`.
    pub listing: Vec<String>,
    /// `User`, `Env`, `Entrypoint`, …
    pub config: Value,
    /// Everything that a push would send.
    pub pushed: PathBuf,
}

pub fn manager() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| build("manager"))
}

pub fn agent() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| build("agent"))
}

fn build(name: &str) -> Image {
    assert!(nix::unistd::geteuid().is_root(), "the tests of the images need root");
    // Cargo's folder for such things; what an earlier run left there goes first.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("image-{name}"));
    let _ = fs::remove_dir_all(&folder);
    let store = folder.join("store");
    fs::create_dir_all(&store).expect("a folder");
    let store = store.display();
    let buildah = format!("buildah --root {store}/root --runroot {store}/run --storage-driver vfs");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    run(Command::new(repository.join("scripts/build-images"))
        .arg(name)
        .env("IMAGES_BUILDER", &buildah)
        .env("PROGRAMS", "target/static/dev")
        .env("RUNNER_TOKEN", CANARY));
    let pushed = folder.join("pushed");
    let mut words = buildah.split(' ');
    let push = ["push", "--quiet", &format!("localhost/staffetta/{name}:latest"), &format!("dir:{}", pushed.display())];
    run(Command::new(words.next().expect("buildah")).args(words).args(push));
    let _ = fs::remove_dir_all(store.to_string());

    let read = |name: &str| -> Value {
        let text = fs::read_to_string(pushed.join(name)).expect("a part of the image");
        serde_json::from_str(&text).expect("JSON")
    };
    // `sha256:SUM` is in a file SUM.
    let file_of =
        |part: &Value| part["digest"].as_str().expect("a digest").split(':').next_back().expect("a sum").to_owned();
    let manifest = read("manifest.json");
    let config = read(&file_of(&manifest["config"]))["config"].clone();
    let root = folder.join("root");
    fs::create_dir(&root).expect("a folder");
    let mut listing = Vec::new();
    for layer in manifest["layers"].as_array().expect("layers") {
        let archive = pushed.join(file_of(layer));
        run(Command::new("tar").args(["--numeric-owner", "-xpf"]).arg(&archive).arg("-C").arg(&root));
        let listed = run(Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(&archive));
        listing.extend(listed.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            [words[0], words[1], words[5]].join(" ")
        }));
    }
    for place in ["dev", "proc"] {
        fs::create_dir(root.join(place)).expect("a place to mount on");
    }
    fs::create_dir_all(root.join("etc")).expect("a folder");
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n").expect("a file");
    Image { root, listing, config, pushed }
}

pub fn run(command: &mut Command) -> String {
    let output =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; `make test` installs what is needed"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}:\n{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

impl Image {
    /// A list of texts in the configuration.
    pub fn words(&self, key: &str) -> Vec<&str> {
        self.config[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    pub fn files(&self) -> Vec<&str> {
        self.listing.iter().map(String::as_str).filter(|line| line.starts_with('-')).collect()
    }

    /// Whether any byte of what is pushed has this text.
    pub fn has(&self, text: &str) -> bool {
        Command::new("grep").args(["-rqF", "-e", text]).arg(&self.pushed).status().expect("grep").success()
    }
}
