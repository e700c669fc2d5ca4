//! A memory at work whose program is killed: it holds what came before or all of what came, and goes on.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use inarch_continual::{Fingerprint, Memory, MemoryConfig, Sample};
use inarch_core::{Digest, Seed};

use super::Program;

/// Snapshots that are put to work one after the other, and samples of each; from the fourth on not all fit.
const PARTS: usize = 6;
const SAMPLES: usize = 300;
const DIM: usize = 256;
const BUDGET: u64 = 560 << 10;
/// How often a process is killed before it may finish a part.
const KILLS: usize = 4;

fn part(number: usize) -> Memory {
    let (backbone, preprocess) = (Digest::of(b"backbone"), Digest::of(b"preparation"));
    let fingerprint = Fingerprint { name: "made up".into(), backbone, preprocess, dim: DIM };
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

    let (mut hits, mut before) = (0, None);
    for (number, after) in states.iter().enumerate() {
        let file = format!("part-{number}");
        let import = ["memory", "import", file.as_str(), "killed"];
        for kill in 0..=KILLS {
            if kill == KILLS {
                program.succeed(&import);
            } else {
                let share = Seed::new(9).split(number).split(kill).hash("wait") as f64 / u64::MAX as f64;
                let mut command = program.command(&import);
                let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
                std::thread::sleep(quickest.mul_f64(share));
                let sent = Command::new("kill").args(["-KILL", &child.id().to_string()]).stderr(Stdio::null()).status();
                assert!(sent.is_ok());
                hits += usize::from(child.wait().expect("ends").signal() == Some(9));
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
    assert!(hits >= PARTS / 2, "{hits} processes were killed");
}
