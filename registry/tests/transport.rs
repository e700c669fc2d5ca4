//! Push and pull: through a registry server of this process, a folder, and the real programs where they are installed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use inarch_registry::{Digest, Error, PushOptions, Remote, SecretKey, Transfer, open_remote};

use crate::server::Server;
use crate::support::{Shelf, sized, tensors};

fn transfer() -> Transfer {
    Transfer { pause: Duration::from_millis(1), ..Transfer::default() }
}

fn name() -> inarch_registry::Name {
    "radiology/chest".parse().expect("a name")
}

/// Two versions, the second with a difference to the first and a signature, pushed to a remote.
fn pushed(remote: &dyn Remote) -> Shelf {
    let shelf = Shelf::new();
    let registry = &shelf.registry;
    let first = registry.publish(sized("radiology/chest", 1, 100_000)).expect("published").version;
    let second = registry.publish(sized("radiology/chest", 2, 100_000)).expect("published").version;
    let delta = registry.make_delta(&first, &second).expect("a difference").expect("worth it");
    assert!(delta < 100_000, "{delta} of 400,000 bytes");
    registry.sign(&second, &SecretKey::from_seed([7; 32])).expect("signed");
    registry.push(&first, remote, &PushOptions::default(), &transfer()).expect("pushed");
    let options = PushOptions { tags: vec!["prod".into()] };
    let report = registry.push(&second, remote, &options, &transfer()).expect("pushed");
    assert_eq!(report.tags, ["2", "prod"]);
    shelf
}

fn there_and_back(remote: &dyn Remote) {
    let here = pushed(remote);
    let there = Shelf::new();
    let pull =
        |selector: &str| there.registry.pull(&name(), &selector.parse().expect("a selector"), remote, &transfer());
    let first = pull("1").expect("pulled");
    assert!(first.is_new && first.deltas == 0 && first.moved_bytes >= first.full_bytes);
    let second = pull("prod").expect("pulled");
    assert_eq!((second.version.number, second.deltas), (2, 1));
    assert!(second.moved_bytes * 3 < second.full_bytes, "{second:?}");
    let checkout = there.registry.checkout(&second.version).expect("a checkout");
    assert!(std::fs::read(checkout.folder().join("adapter.safetensors")).expect("a file") == tensors(2, 100_000));
    assert_eq!(there.registry.attachments(&second.version).expect("readable").len(), 1, "the signature came along");
    let again = pull("2").expect("pulled");
    assert!(!again.is_new && again.moved_bytes == 0);
    assert!(pull("9").is_err_and(|error| error.is_missing()));
    assert!(pull("nowhere").is_err_and(|error| error.is_missing()));
    assert_eq!(here.registry.resolve("radiology/chest").expect("a version"), second.version);
    there.assert_sound();
}

#[test]
fn versions_go_through_a_registry_server_and_back() {
    let server = Server::start();
    there_and_back(&*open_remote(&server.address("clinic"), None).expect("a remote"));
    server.with(|content| assert!(content.manifests.contains_key("clinic/radiology/chest:prod")));
}

#[test]
fn versions_go_through_a_folder_and_back() {
    let folder = tempfile::tempdir().expect("a folder");
    there_and_back(&*open_remote(&folder.path().display().to_string(), None).expect("a remote"));
}

#[test]
fn cut_and_corrupt_downloads_are_resumed_and_repeated() {
    let server = Server::start();
    let remote = open_remote(&server.address("clinic"), None).expect("a remote");
    let _here = pushed(&*remote);
    let pull = |shelf: &Shelf| shelf.registry.pull(&name(), &"1".parse().expect("a selector"), &*remote, &transfer());

    let there = Shelf::new();
    server.cut(2);
    let before = server.sent();
    let report = pull(&there).expect("pulled in the end");
    let sent = server.sent() - before;
    assert!(
        sent as u64 <= report.full_bytes + 20_000,
        "{sent} bytes for {}: what was there was not sent again",
        report.full_bytes
    );
    there.assert_sound();

    let there = Shelf::new();
    server.corrupt(2);
    pull(&there).expect("pulled in the end");
    there.assert_sound();

    let there = Shelf::new();
    server.refuse(3);
    pull(&there).expect("pulled in the end");

    // For ever broken: an error that names the place, and nothing that could be used; then it goes on where it was.
    let there = Shelf::new();
    server.cut(1000);
    assert!(matches!(pull(&there), Err(Error::Remote { transient: true, .. })));
    assert_eq!(there.registry.names().expect("readable"), []);
    server.cut(0);
    let before = server.sent();
    let report = pull(&there).expect("pulled");
    assert!(((server.sent() - before) as u64) < report.full_bytes / 2, "half was there already");
    there.assert_sound();

    let there = Shelf::new();
    server.corrupt(1000);
    assert!(pull(&there).is_err());
    assert_eq!(there.registry.names().expect("readable"), []);
    let report = there.registry.verify().expect("a verification");
    assert_eq!(report.problems, []);
}

#[test]
fn a_server_that_lies_gets_nothing_in() {
    let server = Server::start();
    let remote = open_remote(&server.address("clinic"), None).expect("a remote");
    let here = pushed(&*remote);
    let version = here.registry.resolve("radiology/chest@1").expect("a version");
    let good = here.registry.blobs().read(&version.digest, 1 << 20).expect("a manifest");
    let text = String::from_utf8(good.clone()).expect("text");
    let lies = [
        text.replace("\"dev.inarch.name\":\"radiology/chest\"", "\"dev.inarch.name\":\"radiology/knee\""),
        text.replace("\"dev.inarch.method\":\"lora\"", "\"dev.inarch.method\":\"coop\""),
        text.replace("adapter.json\"", "../adapter.json\""),
        text.replace("\"schemaVersion\":2", "\"schemaVersion\":1"),
        "{}".into(),
        "x".repeat(5 << 20),
    ];
    for lie in lies {
        assert_ne!(lie, text);
        server.with(|content| {
            let kind = "application/vnd.oci.image.manifest.v1+json".to_string();
            content.manifests.insert("clinic/radiology/chest:1".into(), (kind, lie.clone().into_bytes()));
        });
        let there = Shelf::new();
        let pulled = there.registry.pull(&name(), &"1".parse().expect("a selector"), &*remote, &transfer());
        assert!(pulled.is_err(), "{}", &lie[..60.min(lie.len())]);
        assert_eq!(there.registry.names().expect("readable"), []);
    }
}

#[test]
fn addresses_are_read_with_care() {
    for address in ["oci://", "oci:///x", "oci://host/UPPER", "ftp://host/x", "https://host/x", "chest", ""] {
        assert!(open_remote(address, None).is_err(), "{address}");
    }
}

/// A real registry server on a port of loopback.
struct Distribution {
    child: Child,
    host: String,
}

impl Distribution {
    /// None, with a word about it, where it is not installed.
    fn start(folder: &Path) -> Option<Self> {
        let program = ["docker-registry", "registry"].into_iter().find(|program| is_installed(program));
        let Some(program) = program else {
            eprintln!("not run: neither `docker-registry` nor `skopeo` is installed here (Debian has both)");
            return None;
        };
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let host = format!("127.0.0.1:{port}");
        let config = folder.join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
            folder.join("data").display()
        );
        std::fs::write(&config, text).expect("written");
        let child = Command::new(program).arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let server = Self { child: child.expect("it starts"), host };
        for _ in 0..200 {
            if std::net::TcpStream::connect(&server.host).is_ok() {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("`{program}` does not answer at {}", server.host);
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

#[test]
fn a_real_registry_server_and_skopeo_understand_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(server) = Distribution::start(folder.path()) else { return };
    let remote = open_remote(&format!("oci://{}/clinic", server.host), None).expect("a remote");
    there_and_back(&*remote);

    if !is_installed("skopeo") {
        eprintln!("not run: `skopeo` is not installed here");
        return;
    }
    let skopeo = |arguments: &[&str]| {
        let output = Command::new("skopeo").args(arguments).output().expect("it starts");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    // What was pushed, read by another program.
    let source = format!("docker://{}/clinic/radiology/chest:prod", server.host);
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &source]);
    let here = Shelf::new();
    let digest = Digest::of(&raw);
    let pulled = here.registry.pull(&name(), &format!("{digest}").parse().expect("a selector"), &*remote, &transfer());
    assert_eq!(pulled.expect("pulled").version.digest, digest);
    // Our folder, read by another program, and what it wrote, read by ours.
    let layout = format!("oci:{}:radiology/chest:latest", here.registry.root().display());
    assert_eq!(skopeo(&["inspect", "--raw", &layout]), raw);
    let copy = folder.path().join("copy");
    skopeo(&["--insecure-policy", "copy", "--src-tls-verify=false", &source, &format!("oci:{}:chest", copy.display())]);
    let there = Shelf::new();
    let report = there.registry.import(&copy, false).expect("an import");
    assert_eq!(report.imported.iter().map(|version| version.digest).collect::<Vec<_>>(), [digest]);
    let bundle = folder.path().join("bundle.tar");
    there.registry.export(&report.imported, &bundle).expect("a bundle");
    let archive = format!("oci-archive:{}:radiology/chest:2", bundle.display());
    assert_eq!(skopeo(&["inspect", "--raw", &archive]), raw);
    there.assert_sound();
}
