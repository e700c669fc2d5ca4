//! A memory at work whose program is killed: it holds what came before or all of what came, and goes on; what went is on record.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use inarch_continual::{Fingerprint, Ledger, Memory, MemoryConfig, Sample};
use inarch_core::{Digest, Seed};
use serde_json::json;

use super::update::record;
use super::{Program, update};

/// Snapshots that are put to work one after the other, and samples of each; from the fourth on not all fit.
const PARTS: usize = 6;
const SAMPLES: usize = 300;
const DIM: usize = 256;
const BUDGET: u64 = 560 << 10;
/// How often a process is killed before it may finish a part, or a removal.
const KILLS: usize = 4;
const REMOVALS: usize = 8;

fn part(number: usize) -> Memory {
    let (backbone, preprocess) = (Digest::of(b"backbone"), Digest::of(b"preparation"));
    let fingerprint = Fingerprint { name: "made up".into(), backbone, preprocess, window: None, dim: DIM };
    let config = MemoryConfig { budget_bytes: BUDGET, ..MemoryConfig::default() };
    let mut memory = Memory::new(config, fingerprint).expect("a memory");
    let sample = |at: usize| Sample {
        id: format!("{number}/{at:03}"),
        // Each part brings a class that is new, so that others shrink for it.
        class: format!("class {}", if at.is_multiple_of(3) { number } else { at % 2 }),
        source: format!("part {number}"),
        time: number as u64,
        weight: 1.0,
        latent: Seed::new(number as u64).split(at).normals(DIM, 1.0),
        views: Vec::new(),
        image: None,
        scores: Vec::new(),
    };
    memory.offer((0..SAMPLES).map(sample)).expect("samples");
    memory
}

/// The snapshot of the memory at work; `None` where it holds nothing.
fn exported(program: &Program, name: &str) -> Option<Vec<u8>> {
    let file = format!("{name}.out");
    let run = program.run(&["memory", "export", name, &file]);
    if run.code == 0 {
        return Some(std::fs::read(program.path(&file)).expect("a snapshot"));
    }
    assert!(run.stderr.contains("is empty") || run.stderr.contains("there is no memory"), "{}", run.stderr);
    None
}

/// A share of a time, by what it is for.
fn share(number: usize, kill: usize) -> f64 {
    Seed::new(9).split(number).split(kill).hash("wait") as f64 / u64::MAX as f64
}

/// Kills processes while they work.
struct Killer {
    /// How long a process is believed to work.
    time: Duration,
    /// How many were still at work when they were killed.
    hits: usize,
}

impl Killer {
    fn new(time: Duration) -> Self {
        Self { time, hits: 0 }
    }

    /// Runs a command and kills it after a share of the time. One that was done by then had less time than was believed,
    /// as on a machine that was busy when it was taken.
    fn kill(&mut self, program: &Program, arguments: &[&str], share: f64) {
        let mut command = program.command(arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        std::thread::sleep(self.time.mul_f64(share));
        // Fails where there is nothing left to kill.
        let _ = child.kill();
        if child.wait().expect("ends").signal() == Some(9) {
            self.hits += 1;
        } else {
            self.time = self.time.mul_f64(0.7);
        }
    }
}

#[test]
fn what_is_added_later_is_kept_as_the_memory_was_begun() {
    let program = Program::new();
    let (old, new) =
        (update::part(&program, "old", &update::OLD, 0, 4), update::part(&program, "new", &update::NEW, 0, 4));
    let add = |data: &str, more: &[&str]| {
        let run = program.run(&[&["memory", "add", "camera", "-b", "pocket", "-d", data], more].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stderr
    };
    let said = add(&old, &["--set", "content=\"images\"", "--set", "budget_bytes=900000"]);
    assert!(!said.contains("left out"), "{said}");
    let said = add(&new, &[]);
    assert!(!said.contains("left out"), "{said}");
    program.succeed(&["memory", "export", "camera", "camera.memory"]);
    let memory = Memory::load(&program.path("camera.memory"), None).expect("a snapshot");
    assert!(memory.samples().any(|sample| sample.source == "new"));
    // A memory of images holds the image of each.
    assert!(memory.samples().all(|sample| sample.image.is_some()));
    let said = add(&new, &["--set", "budget_bytes=2048", "--set", "content=\"images\""]);
    assert!(said.contains("left out: budget_bytes;") && said.contains("`camera`"), "{said}");
    assert_eq!(program.json(&["memory", "show", "camera"])["config"]["budget_bytes"], 900_000);
}

#[test]
fn a_memory_at_work_that_is_killed_holds_all_of_an_offer_or_nothing_of_it() {
    let program = Program::new();
    // What it is to hold after each part.
    let mut states: Vec<Memory> = Vec::new();
    for number in 0..PARTS {
        let own = part(number);
        own.save(&program.path(&format!("part-{number}")), None).expect("writes");
        let joined = states.last().cloned().map(|mut before: Memory| {
            before.merge(&own).expect("of one kind");
            before
        });
        states.push(joined.unwrap_or(own));
    }
    assert!(states[2].len() == 3 * SAMPLES && states[PARTS - 1].len() < PARTS * SAMPLES, "the budget is too large");
    let states: Vec<Vec<u8>> = states.iter().map(|memory| memory.snapshot(None)).collect();

    let mut quickest = Duration::MAX;
    for (number, state) in states.iter().enumerate() {
        let started = Instant::now();
        program.succeed(&["memory", "import", &format!("part-{number}"), "whole"]);
        quickest = quickest.min(started.elapsed());
        assert!(exported(&program, "whole").as_ref() == Some(state), "part {number}");
    }

    let (mut killer, mut before) = (Killer::new(quickest), None);
    for (number, after) in states.iter().enumerate() {
        let file = format!("part-{number}");
        let import = ["memory", "import", file.as_str(), "killed"];
        for kill in 0..=KILLS {
            if kill == KILLS {
                program.succeed(&import);
            } else {
                killer.kill(&program, &import, share(number, kill));
            }
            let what = format!("part {number}, kill {kill}");
            let found = exported(&program, "killed");
            if let Some(found) = &found {
                let checked = program.json(&["memory", "verify", "killed"]);
                assert_eq!(checked["within_budget"], true, "{what}");
                let file = program.path("killed.out");
                let snapshot = Memory::load(&file, None).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(snapshot.bytes() <= BUDGET && snapshot.bytes() == found.len() as u64, "{what}");
            }
            if found.as_ref() == Some(after) {
                // Killed when it was done; another time would count the offers twice.
                break;
            }
            assert!(found == before, "{what}: it holds neither what it held nor what came");
        }
        before = Some(after.clone());
        assert!(exported(&program, "killed") == before, "part {number}");
    }
    assert!(killer.hits > 1, "{} processes were killed", killer.hits);
}

#[test]
fn what_a_memory_at_work_that_is_killed_has_forgotten_is_on_record() {
    const RECORDS: &str = "home/memory/killed.forgotten.json";
    let program = Program::new();
    let mut left = part(0);
    left.save(&program.path("whole"), None).expect("writes");
    for name in ["timed", "killed"] {
        program.succeed(&["memory", "import", "whole", name]);
    }
    let ids: Vec<String> = left.samples().map(|sample| sample.id.clone()).take(REMOVALS).collect();
    let mut quickest = Duration::MAX;
    for id in &ids[..3] {
        let started = Instant::now();
        program.succeed(&["memory", "forget", "timed", id]);
        quickest = quickest.min(started.elapsed());
    }

    let mut killer = Killer::new(quickest);
    for (round, id) in ids.iter().enumerate() {
        let mut after = left.clone();
        after.remove(std::slice::from_ref(id));
        let [before, gone] = [&left, &after].map(|memory| memory.snapshot(None));
        let forget = ["memory", "forget", "killed", id.as_str()];
        for kill in 0..=KILLS {
            if kill == KILLS {
                program.succeed(&forget);
            } else {
                // Late more often than early: the record is written in the end.
                killer.kill(&program, &forget, share(round, kill).sqrt());
            }
            let what = format!("removal {round}, kill {kill}");
            // Whichever command comes next completes the record.
            program.succeed(&["memory", ["show", "verify"][kill % 2], "killed"]);
            let records = if program.path(RECORDS).is_file() { record(&program, RECORDS) } else { json!([]) };
            let count = records.as_array().expect("a list").len();
            let found = exported(&program, "killed").expect("samples");
            if found == before {
                assert!(kill < KILLS && count == round, "{what}: nothing is gone, and there are {count} records");
                continue;
            }
            assert!(found == gone, "{what}: it holds neither what it held nor all but what was to go");
            assert_eq!(count, round + 1, "{what}: records");
            let last = &records[round];
            assert_eq!((&last["by"], &last["forgotten"]), (&json!("forget"), &json!([Ledger::name(id)])), "{what}");
            assert_eq!(last["samples"], json!([left.len(), after.len()]), "{what}");
            assert_eq!(last["memory"], json!([Digest::of(&before), Digest::of(&gone)]), "{what}");
            break;
        }
        left = after;
    }
    assert!(killer.hits > 1, "{} processes were killed", killer.hits);
}
