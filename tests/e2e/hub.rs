//! Backbones of a model hub: downloaded once, verified, found again offline and in the layout that others share.

use std::path::{Path, PathBuf};

use inarch_core::Digest;
use inarch_core::checkpoint::read_safetensors;
use serde_json::Value;

use super::Program;
use super::hub_server::{COMMIT, HubServer, REPOSITORY, checksum};
use super::program::{Run, sample};
use crate::support::fixture;

const WEIGHTS: &str = "model.safetensors";

#[track_caller]
fn read_bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where the cache keeps a blob until it is whole.
fn part_of(blob: &Path) -> PathBuf {
    PathBuf::from(format!("{}.incomplete", blob.display()))
}

/// A program, and a hub with the tiny CLIP and with files that nobody needs.
struct World {
    program: Program,
    hub: HubServer,
}

impl World {
    fn new() -> Self {
        let hub = HubServer::start(&fixture("parity/clip_tiny/quick"));
        hub.with(|behaviour| {
            for name in ["README.md", "modeling_tiny.py", "pytorch_model.bin", "flax_model.msgpack"] {
                behaviour.files.insert(name.into(), b"not needed".to_vec());
            }
        });
        Self { program: Program::new(), hub }
    }

    /// Runs with the network that leads to the hub, and some more variables.
    #[track_caller]
    fn online(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
        let mut command = self.program.command(arguments);
        command.env("HF_ENDPOINT", self.hub.address()).env("HF_HUB_OFFLINE", "0");
        let output = command.envs(variables.iter().copied()).output().expect("the binary starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        let run =
            Run { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) };
        assert!(!run.stderr.contains("panicked at"), "{arguments:?}: {}", run.stderr);
        run
    }

    #[track_caller]
    fn pull(&self) -> Value {
        let run = self.online(&["backbone", "pull", REPOSITORY, "--json"], &[]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        serde_json::from_str(&run.stdout).expect("JSON")
    }

    /// Runs online and expects this exit code and these words.
    #[track_caller]
    fn fail(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let run = self.online(arguments, &[]);
        assert_eq!((run.code, run.stdout.as_str()), (code, ""), "{arguments:?}\n{}", run.stderr);
        for word in words {
            assert!(run.stderr.contains(word), "`{word}` is missing in: {}", run.stderr);
        }
    }

    /// The repository in the cache.
    fn cached(&self, path: &str) -> PathBuf {
        self.program.path("huggingface/hub/models--org--tiny").join(path)
    }

    /// The weights as the hub has them, and where the cache keeps them.
    fn weights(&self) -> (Vec<u8>, PathBuf) {
        let bytes = self.hub.with(|behaviour| behaviour.files[WEIGHTS].clone());
        let blob = self.cached("blobs").join(checksum(WEIGHTS, &bytes));
        (bytes, blob)
    }

    /// Nothing of the weights is in the cache.
    #[track_caller]
    fn has_no_weights(&self) {
        let (_, blob) = self.weights();
        assert!(!blob.exists() && !part_of(&blob).exists());
        assert!(!self.cached("snapshots").join(COMMIT).join(WEIGHTS).exists());
        self.program.fail(&["backbone", "show", REPOSITORY], 2, &["HF_HUB_OFFLINE", "inarch backbone pull org/tiny"]);
    }
}

#[test]
fn what_was_pulled_is_used_offline_and_equals_the_folder() {
    let world = World::new();
    let pulled = world.pull();
    assert_eq!(pulled["commit"], COMMIT);
    let snapshot = world.cached("snapshots").join(COMMIT);
    assert_eq!(pulled["path"], snapshot.display().to_string());
    let mut files: Vec<&str> = pulled["files"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    files.sort_unstable();
    let expected = ["config.json", WEIGHTS, "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(files, expected, "what is needed, once, and no code");
    assert_eq!(pulled["downloaded"], pulled["bytes"]);
    for name in expected {
        let bytes = world.hub.with(|behaviour| behaviour.files[name].clone());
        assert_eq!(read_bytes(&snapshot.join(name)), bytes, "{name}");
        assert_eq!(read_bytes(&world.cached("blobs").join(checksum(name, &bytes))), bytes, "{name}");
        #[cfg(unix)]
        assert!(snapshot.join(name).is_symlink(), "{name}");
    }
    assert_eq!(read_bytes(&world.cached("refs/main")), COMMIT.as_bytes());
    let asked = world.hub.requests();
    assert!(asked.iter().all(|request| !request.contains("README") && !request.contains(".py")), "{asked:?}");
    assert_eq!(world.pull()["downloaded"], 0, "a second time moves nothing");
    assert_eq!(world.hub.requests(), [format!("GET api/models/{REPOSITORY}/revision/main")]);

    // From here on without a network.
    let program = &world.program;
    let folder = fixture("parity/clip_tiny/quick").display().to_string();
    std::fs::write(program.path("texts.txt"), "a hat\nthe cat\n").expect("writes");
    for (backbone, output) in [(REPOSITORY, "hub.safetensors"), (folder.as_str(), "folder.safetensors")] {
        program.succeed(&["encode", "-b", backbone, "--texts", "texts.txt", "-o", output]);
    }
    let features = |name: &str| read_safetensors(&program.path(name)).expect("features").0;
    assert_eq!(features("hub.safetensors"), features("folder.safetensors"));
    let eval = |backbone: &str| program.json(&["eval", "-b", backbone, "-d", sample()]);
    let (ours, theirs) = (eval("org/tiny@main"), eval(&folder));
    assert_eq!(ours["accuracy"], theirs["accuracy"]);
    assert_eq!(ours["per_class"], theirs["per_class"]);
    let show = |backbone: &str| program.json(&["backbone", "show", backbone]);
    assert_eq!(show(REPOSITORY)["name"], "tiny");
    assert_eq!(show(REPOSITORY)["digest"], show(&folder)["digest"]);
    assert_eq!(show(&format!("{REPOSITORY}@{COMMIT}"))["name"], "tiny");
    let list = program.json(&["backbone", "list"]);
    assert_eq!(list["cached"][0]["id"], REPOSITORY);
    assert_eq!(list["cached"][0]["bytes"], pulled["bytes"]);
    assert!(world.hub.requests().is_empty());
}

#[test]
fn an_id_is_downloaded_where_it_is_used_first() {
    let world = World::new();
    // The list gives names only, so that sizes and checksums come from the files' headers; the hub is busy at first.
    world.hub.with(|behaviour| (behaviour.is_terse, behaviour.refusals) = (true, 1));
    let run = world.online(&["backbone", "show", "org/tiny@v1", "--json"], &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("downloading `org/tiny@v1` from http://127.0.0.1"), "{}", run.stderr);
    let asked = world.hub.requests();
    assert!(asked.contains(&format!("HEAD {REPOSITORY}/resolve/{COMMIT}/{WEIGHTS}")), "{asked:?}");
    let run = world.online(&["backbone", "show", "org/tiny@v1", "--json"], &[]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert!(world.hub.requests().is_empty(), "the cache is used without a question");
}

#[test]
fn a_download_goes_on_where_it_broke_off() {
    let world = World::new();
    let (bytes, blob) = world.weights();
    // In the same run.
    world.hub.with(|behaviour| behaviour.cuts = 1);
    world.pull();
    assert_eq!(read_bytes(&blob), bytes);
    let half = bytes.len() / 2;
    assert!(world.hub.requests().contains(&format!("GET storage/{WEIGHTS} bytes={half}-")));
    // In a later one.
    let part = part_of(&blob);
    std::fs::remove_file(&blob).expect("removes");
    std::fs::write(&part, &bytes[..100_000]).expect("writes");
    world.pull();
    assert_eq!(read_bytes(&blob), bytes);
    assert!(world.hub.requests().contains(&format!("GET storage/{WEIGHTS} bytes=100000-")));
    // A beginning of something else is given up.
    std::fs::remove_file(&blob).expect("removes");
    std::fs::write(&part, vec![7; 1000]).expect("writes");
    world.pull();
    assert_eq!(read_bytes(&blob), bytes);
    assert!(!part.exists());
    // So is a file that was damaged on the disk.
    std::fs::write(&blob, vec![7; bytes.len()]).expect("writes");
    world.pull();
    assert_eq!(read_bytes(&blob), bytes);
}

#[test]
fn two_pulls_at_once_share_one_download() {
    let world = World::new();
    let pulled = std::thread::scope(|scope| {
        let workers = [(); 2].map(|()| scope.spawn(|| world.pull()));
        workers.map(|worker| worker.join().expect("a pull"))
    });
    let downloaded: u64 = pulled.iter().filter_map(|pulled| pulled["downloaded"].as_u64()).sum();
    assert_eq!(pulled[0]["bytes"], downloaded, "every file was moved by one of the two");
    let asked = world.hub.requests();
    assert_eq!(asked.iter().filter(|request| request.contains("storage")).count(), 1, "{asked:?}");
}

#[test]
fn what_does_not_have_its_checksum_or_its_size_is_not_kept() {
    let world = World::new();
    world.hub.with(|behaviour| behaviour.corrupts = true);
    world.fail(&["backbone", "pull", REPOSITORY], 1, &["model.safetensors", "is damaged", "expected", "run it again"]);
    world.has_no_weights();
    // More than was said.
    world.hub.with(|behaviour| (behaviour.corrupts, behaviour.claimed) = (false, Some(1000)));
    world.fail(&["backbone", "pull", REPOSITORY], 1, &["model.safetensors", "too large", "1000"]);
    world.has_no_weights();
    // More than anybody has.
    world.hub.with(|behaviour| behaviour.claimed = Some(1 << 40));
    world.hub.requests();
    world.fail(&["backbone", "pull", REPOSITORY], 1, &["model.safetensors", "too large"]);
    assert!(!world.hub.requests().iter().any(|request| request.contains("storage")));
    world.has_no_weights();
}

#[test]
fn a_name_that_leads_elsewhere_is_refused() {
    let world = World::new();
    for name in ["../../x", "/etc/x", "a/../../x"] {
        world.hub.with(|behaviour| behaviour.further = vec![name.into()]);
        world.fail(&["backbone", "pull", REPOSITORY], 1, &[name, "lead out of the repository"]);
    }
    assert!(!world.program.path("huggingface").exists());
}

#[test]
fn what_the_hub_refuses_is_said_with_the_cure() {
    let world = World::new();
    world.fail(&["backbone", "pull", "org/other"], 2, &["no repository `org/other`", "ORG/NAME"]);
    world.fail(&["backbone", "pull", "org/tiny@v9"], 2, &["no revision `v9` of `org/tiny`"]);
    world.fail(&["eval", "-b", "org/other", "-d", sample()], 2, &["org/other", "no such file or folder is here"]);
    world.hub.with(|behaviour| behaviour.token = Some("hf_secret".into()));
    world.fail(&["backbone", "pull", REPOSITORY], 3, &["gated", "401", "no token was sent", "HF_TOKEN"]);
    let wrong = world.online(&["backbone", "pull", REPOSITORY], &[("HF_TOKEN", "hf_other")]);
    assert_eq!(wrong.code, 3, "{}", wrong.stderr);
    assert!(wrong.stderr.contains("may not read it") && !wrong.stderr.contains("hf_other"), "{}", wrong.stderr);
    let right = world.online(&["backbone", "pull", REPOSITORY], &[("HF_TOKEN", "hf_secret")]);
    assert_eq!(right.code, 0, "{}", right.stderr);
    // The file that the hub's own program writes does as well.
    std::fs::write(world.program.path("huggingface/token"), "hf_secret\n").expect("writes");
    world.pull();
}

#[test]
fn a_repository_without_a_use_is_not_downloaded() {
    let world = World::new();
    world.hub.with(|behaviour| behaviour.files.insert("config.json".into(), br#"{"model_type":"llama"}"#.to_vec()));
    world.fail(&["backbone", "pull", REPOSITORY], 3, &["`llama`", "siglip"]);
    world.has_no_weights();
    world
        .hub
        .with(|behaviour| behaviour.files.retain(|name, _| !name.starts_with("model.") && !name.starts_with("py")));
    world.fail(&["backbone", "pull", REPOSITORY], 1, &["no weights", "model.safetensors", "flax_model.msgpack"]);
    assert!(world.hub.requests().iter().all(|request| !request.contains("storage")));
}

#[test]
fn a_path_with_a_slip_in_it_never_goes_to_the_network() {
    let world = World::new();
    std::fs::create_dir(world.program.path("models")).expect("a folder");
    for path in [
        "./org/tiny",
        "../no-such-tiny",
        "/org/tiny",
        "org/tiny/deep",
        "org/tiny.safetensors",
        "models/tiny",
        "org/..",
        "tiny.pt",
    ] {
        world.fail(&["backbone", "show", path], 2, &[path, "does not exist", "a hub id"]);
    }
    world.fail(&["backbone", "show", "models/tiny"], 2, &["inarch backbone pull models/tiny"]);
    world.fail(&["backbone", "show", "tinny"], 2, &["tinny", "a hub id", "known: pocket"]);
    world.fail(&["backbone", "pull", "tiny"], 2, &["`tiny`", "ORG/NAME"]);
    assert!(world.hub.requests().is_empty());
    // With the network forbidden an id is not asked for, either.
    let forbidden = world.online(&["backbone", "show", REPOSITORY], &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(forbidden.code, 2, "{}", forbidden.stderr);
    assert!(forbidden.stderr.contains("HF_HUB_OFFLINE forbids"), "{}", forbidden.stderr);
    assert!(world.hub.requests().is_empty());
    // A folder of that name comes first.
    std::fs::create_dir(world.program.path("org")).expect("a folder");
    std::fs::create_dir(world.program.path(REPOSITORY)).expect("a folder");
    world.fail(&["backbone", "show", REPOSITORY], 1, &["no weights"]);
    assert!(world.hub.requests().is_empty());
}

#[test]
fn what_other_programs_downloaded_is_found_and_completed() {
    let world = World::new();
    let snapshot = world.cached("snapshots").join(COMMIT);
    std::fs::create_dir_all(&snapshot).expect("folders");
    std::fs::create_dir_all(world.cached("refs")).expect("folders");
    std::fs::write(world.cached("refs/main"), COMMIT).expect("writes");
    // As it looks where links cannot be made: files themselves, and no tokenizer.
    let source = fixture("parity/clip_tiny/quick");
    for name in ["config.json", WEIGHTS, "preprocessor_config.json"] {
        std::fs::copy(source.join(name), snapshot.join(name)).expect("copies");
    }
    world.program.fail(&["backbone", "show", REPOSITORY], 1, &["tokenizer.json", "inarch backbone pull org/tiny"]);
    std::fs::copy(source.join("tokenizer.json"), snapshot.join("tokenizer.json")).expect("copies");
    let found = world.program.json(&["backbone", "show", REPOSITORY]);
    assert_eq!(found["digest"], Value::from(show_folder(&world)));
    std::fs::remove_file(snapshot.join("tokenizer.json")).expect("removes");
    let pulled = world.pull();
    let missing = ["tokenizer.json", "tokenizer_config.json"].map(|name| read_bytes(&source.join(name)).len());
    assert_eq!(pulled["downloaded"], missing.iter().sum::<usize>());
    assert!(world.hub.requests().iter().all(|request| !request.contains("storage")), "the weights were here");
    assert_eq!(world.program.json(&["backbone", "show", REPOSITORY])["digest"], found["digest"]);
    // Another cache is empty.
    let elsewhere = world.online(&["backbone", "list", "--json"], &[("HF_HUB_CACHE", "elsewhere")]);
    let list: Value = serde_json::from_str(&elsewhere.stdout).expect("JSON");
    assert_eq!(list["cached"], Value::Array(Vec::new()));
}

/// The identity of the folder that the hub offers.
fn show_folder(world: &World) -> String {
    let folder = fixture("parity/clip_tiny/quick").display().to_string();
    let digest = world.program.json(&["backbone", "show", &folder])["digest"].clone();
    digest.as_str().expect("a digest").to_string()
}

#[test]
fn shards_are_downloaded_with_their_list() {
    let world = World::new();
    let name = "model-00001-of-00001.safetensors";
    let (bytes, _) = world.weights();
    let (tensors, _) = read_safetensors(&fixture("parity/clip_tiny/quick").join(WEIGHTS)).expect("weights");
    let list: serde_json::Map<String, Value> = tensors.keys().map(|key| (key.clone(), name.into())).collect();
    world.hub.with(|behaviour| {
        behaviour.files.remove(WEIGHTS);
        behaviour.files.insert(name.into(), bytes.clone());
        let list = serde_json::json!({ "weight_map": list }).to_string();
        behaviour.files.insert("model.safetensors.index.json".into(), list.into_bytes());
    });
    world.pull();
    let blob = world.cached("blobs").join(Digest::of(&bytes).hex());
    assert_eq!(read_bytes(&blob), bytes);
    assert_eq!(world.program.json(&["backbone", "show", REPOSITORY])["name"], "tiny");
    // Without a shard it is no backbone.
    std::fs::remove_file(&blob).expect("removes");
    world.program.fail(&["backbone", "show", REPOSITORY], 2, &["HF_HUB_OFFLINE"]);
    // A list that names something else is not followed.
    world.hub.with(|behaviour| {
        let list = r#"{"weight_map":{"a":"../../../x.safetensors"}}"#;
        behaviour.files.insert("model.safetensors.index.json".into(), list.as_bytes().to_vec());
    });
    world.fail(&["backbone", "pull", REPOSITORY], 1, &["../../../x.safetensors", "not the name"]);
}
