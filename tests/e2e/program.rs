//! Running the binary under test.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

/// The binary in an empty folder, with a home of its own.
pub(super) struct Program {
    folder: TempDir,
}

/// What a run printed and how it ended.
pub(super) struct Run {
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Program {
    pub(super) fn new() -> Self {
        Self { folder: TempDir::new().expect("a temporary folder") }
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_inarch-under-test"));
        command.args(arguments).current_dir(self.folder()).env("INARCH_HOME", self.path("home")).stdin(Stdio::null());
        // Neither a network nor what the user has downloaded may decide a test.
        command.env("HF_HOME", self.path("huggingface")).env("HF_HUB_OFFLINE", "1");
        for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs to the end. Whatever happens, no panic may show.
    #[track_caller]
    pub(super) fn run(&self, arguments: &[&str]) -> Run {
        let Output { status, stdout, stderr } = self.command(arguments).output().expect("the binary starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        let run = Run { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) };
        assert!(!run.stderr.contains("panicked at"), "{arguments:?}: {}", run.stderr);
        run
    }

    /// Runs and expects success; returns stdout.
    #[track_caller]
    pub(super) fn succeed(&self, arguments: &[&str]) -> String {
        let run = self.run(arguments);
        assert_eq!(run.code, 0, "{arguments:?}\n{}", run.stderr);
        run.stdout
    }

    /// Runs with `--json` and expects exactly one object on stdout.
    #[track_caller]
    pub(super) fn json(&self, arguments: &[&str]) -> Value {
        let stdout = self.succeed(&[arguments, &["--json"]].concat());
        assert_eq!(stdout.lines().count(), 1, "{stdout}");
        let value: Value = serde_json::from_str(&stdout).expect("JSON");
        assert!(value.is_object());
        value
    }

    /// Runs and expects this exit code, nothing on stdout, and these words on stderr.
    #[track_caller]
    pub(super) fn fail(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let run = self.run(arguments);
        assert_eq!(run.code, code, "{arguments:?}\n{}", run.stderr);
        assert_eq!(run.stdout, "", "{arguments:?}");
        for word in words {
            assert!(run.stderr.contains(word), "`{word}` is missing in: {}", run.stderr);
        }
    }
}

/// The sample of the demo: class folders with a train and a test split.
pub(super) fn sample() -> &'static str {
    static SAMPLE: OnceLock<(TempDir, String)> = OnceLock::new();
    let (_, path) = SAMPLE.get_or_init(|| {
        let folder = TempDir::new().expect("a temporary folder");
        let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/sample/sample.tar");
        let file = std::fs::File::open(archive).expect("the sample");
        tar::Archive::new(file).unpack(folder.path()).expect("unpacks");
        let path = folder.path().display().to_string();
        (folder, path)
    });
    path
}

/// A short fit on the sample.
pub(super) fn short_fit<'a>(method: &'a str, seed: &'a str, output: &'a str) -> Vec<&'a str> {
    let budget = "train.budget={ iterations = 6 }";
    vec![
        "fit",
        "-b",
        "pocket",
        "-d",
        sample(),
        "-m",
        method,
        "--shots",
        "2",
        "--seed",
        seed,
        "--set",
        budget,
        "--set",
        "views=2",
        "-o",
        output,
    ]
}

/// The two files of an adapter.
#[track_caller]
pub(super) fn adapter_bytes(folder: &Path) -> [Vec<u8>; 2] {
    ["adapter.safetensors", "adapter.json"]
        .map(|name| std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}")))
}
