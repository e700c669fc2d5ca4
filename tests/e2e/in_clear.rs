//! An update under a key: no image that it remembers lies in clear anywhere, not even while it trains and judges.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::Program;
use super::update::{LENIENT, NEW, OLD, part};

/// Everything below a folder, as far as it is there at the moment.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries
        .flat_map(|path| if path.is_dir() { [vec![path.clone()], below(&path)].concat() } else { vec![path] })
        .collect()
}

#[test]
fn remembered_images_never_lie_in_clear_while_an_update_runs() {
    let program = Program::new();
    let (old, new) = (part(&program, "old", &OLD[..2], 0, 4), part(&program, "new", &NEW, 0, 4));
    program.succeed(&["memory", "key", "key"]);
    let update = |data, more: &[&'static str]| -> Vec<&str> {
        let budget = ["--set", "fit.train.budget={ iterations = 6 }", "--key", "key", "-b", "pocket"];
        [&["update", "shop", "-d", data], &budget[..], LENIENT, more].concat()
    };
    program.json(&update(&old, &["--init", "lora"]));
    let images: Vec<Vec<u8>> = below(Path::new(&old))
        .iter()
        .filter(|path| path.is_file())
        .map(|path| std::fs::read(path).expect("reads"))
        .collect();
    let shown = program.json(&["memory", "show", "shop", "--key", "key"]);
    assert!(shown["samples"].as_u64() > Some(0) && shown["config"]["content"] == "images", "{shown}");

    let temporary = program.path("temporary");
    std::fs::create_dir(&temporary).expect("creates");
    let mut command = program.command(&update(&new, &[]));
    let mut child = command
        .env("TMPDIR", &temporary)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let (mut looked, mut clear) = (0, Vec::new());
    let status = loop {
        for path in below(&temporary).into_iter().chain(below(&program.path("shop"))) {
            looked += usize::from(path.starts_with(&temporary));
            if std::fs::read(&path).is_ok_and(|bytes| images.contains(&bytes)) {
                clear.push(path);
            }
        }
        if let Some(status) = child.try_wait().expect("waits") {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "{status}");
    assert!(looked > 0, "the update works in that folder");
    assert!(clear.is_empty(), "{clear:?}");
    assert!(below(&temporary).is_empty(), "nothing is left");
}
