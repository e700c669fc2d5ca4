//! Keys, remotes, channels and the agent, as the guide goes through them.

use super::Program;
use super::program::{sample, short_fit};

/// An empty folder with two versions of `chest` in its registry.
fn publisher() -> Program {
    let program = Program::new();
    for (seed, output) in [("1", "one"), ("2", "two")] {
        program.succeed(&[&short_fit("linear-probe", seed, output)[..], &["--publish", "chest"]].concat());
    }
    program
}

#[test]
fn unsigned_and_wrongly_signed_adapters_are_refused_where_keys_are_trusted() {
    let program = publisher();
    let eval = ["eval", "-b", "pocket", "-d", sample(), "-a", "chest@1"];
    for key in ["release.key", "other.key"] {
        program.succeed(&["registry", "keys", "generate", key]);
    }
    program.succeed(&["registry", "keys", "trust", "release.key.pub"]);
    program.fail(&eval, 3, &["chest@1", "not trusted", "1 signatures"]);
    program.fail(&["registry", "promote", "chest@1", "prod", "-b", "pocket"], 3, &["not trusted", "registry sign"]);
    let serve = ["serve", "-b", "pocket", "-a", "chest@1", "--port", "0"];
    program.fail(&serve, 3, &["error: `chest@1` is not trusted", "1 signatures", "registry sign"]);
    let update = ["update", "chest", "-b", "pocket", "-d", sample()];
    program.fail(&update, 3, &["not trusted"]);
    let over = [&update[..], &["--init", "rail"]].concat();
    assert!(program.run(&over).stderr.contains("it exists already"), "nothing is begun over what may not be read");
    program.succeed(&["registry", "sign", "chest@1", "--key", "other.key"]);
    program.fail(&eval, 3, &["not trusted"]);
    program.succeed(&["registry", "sign", "chest@1", "--key", "release.key"]);
    program.succeed(&eval);
    assert_eq!(program.json(&["registry", "keys", "list"])["threshold"], 1);
    program.succeed(&["registry", "keys", "distrust", "release.key"]);
    program.succeed(&["eval", "-b", "pocket", "-d", sample(), "-a", "chest@2"]);
    program.fail(&["registry", "keys", "generate", "release.key"], 1, &["release.key"]);
}

#[test]
fn a_version_goes_through_a_folder_to_another_machine() {
    let (here, there) = (publisher(), Program::new());
    here.succeed(&["registry", "tag", "chest@2", "prod"]);
    let mirror = here.path("mirror").display().to_string();
    here.succeed(&["registry", "push", "chest@1", &mirror]);
    here.succeed(&["registry", "push", "chest@prod", &mirror]);
    let report = there.json(&["registry", "pull", "chest@prod", &mirror, "--alias", "prod"]);
    assert_eq!((&report["number"], &report["is_new"]), (&2.into(), &true.into()));
    let eval = |program: &Program| {
        program.json(&["eval", "-b", "pocket", "-d", sample(), "-a", "chest@prod"])["accuracy"].clone()
    };
    assert_eq!(eval(&here), eval(&there));
    there.fail(&["registry", "pull", "chest@9", &mirror], 2, &["no version `chest@9`"]);
    there.fail(&["registry", "pull", "chest", "nowhere"], 2, &["not a valid remote", "oci://"]);
    there.fail(&["registry", "pull", "chest", "oci://127.0.0.1:1/x"], 1, &["127.0.0.1:1", "run it again"]);
}

#[test]
fn a_device_follows_its_channel_goes_back_by_itself_and_stays_when_it_is_lied_to() {
    let (here, device) = (publisher(), Program::new());
    for key in ["root.key", "online.key"] {
        here.succeed(&["registry", "keys", "generate", key]);
    }
    let mirror = here.path("mirror").display().to_string();
    let channel = format!("{mirror}#stable");
    let keys = ["--root-key", "root.key", "--key", "online.key"];
    // Without a file for its root, no channel is made.
    let nowhere = [&["registry", "channel", "create", &channel, "-o", "."][..], &keys].concat();
    here.fail(&nowhere, 1, &["`.`", "name a file"]);
    here.succeed(&[&["registry", "channel", "create", &channel, "-o", "root.json"][..], &keys].concat());
    let offer = |version: &str, share: &str| {
        here.succeed(&["registry", "channel", "offer", version, &channel, "--key", "online.key", "--share", share])
    };
    offer("chest@1", "100");

    let root = here.path("root.json").display().to_string();
    let agent = ["agent", &channel, "-b", "pocket", "--once", "--checks", "1", "--name", "ward-3"];
    device.fail(&agent, 3, &["no root", "--root"]);
    let step = device.json(&[&agent[..], &["--root", &root]].concat());
    assert_eq!((&step["outcomes"][0]["outcome"], &step["outcomes"][0]["number"]), (&"activated".into(), &1.into()));
    assert_eq!(device.json(&agent)["outcomes"][0]["outcome"], "committed");
    let eval = ["eval", "-b", "pocket", "-d", sample(), "-a", "chest@active"];
    let accuracy = device.json(&eval)["accuracy"].clone();

    // One agent at a time: here, as long as this test holds what an agent does.
    let folder = inarch_core::file::list(&device.path("home/agent")).expect("a folder").remove(0);
    let lock = std::fs::File::options().read(true).write(true).open(folder.join("lock")).expect("an agent was here");
    lock.lock().expect("no agent is here");
    let place = folder.display().to_string();
    device.fail(&agent, 3, &["agent folder", &place, "another agent", "stop it first", "INARCH_HOME"]);
    drop(lock);

    // The next one breaks in use: the device goes back by itself and reports it.
    offer("chest@2", "100");
    let sick = device.path("sick.sh");
    std::fs::write(&sick, "#!/bin/sh\n[ \"$2\" != 2 ]\n").expect("written");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&sick, std::fs::Permissions::from_mode(0o755)).expect("executable");
    }
    let sick = sick.display().to_string();
    let watched = [&agent[..], &["--health", &sick, "--json"]].concat();
    assert!(device.succeed(&watched).contains("activated"));
    let run = device.run(&watched);
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(run.stdout.contains("\"failed\"") && run.stdout.contains("\"active\":1"), "{}", run.stdout);
    assert_eq!(device.json(&eval)["accuracy"], accuracy);
    std::fs::write(here.path("report"), run.stdout).expect("written");
    let decide = ["registry", "channel", "decide", "chest@2", "report", "--least-reports", "1"];
    let run = here.run(&decide);
    assert!(run.code == 3 && run.stdout.starts_with("stop"), "{}{}", run.stdout, run.stderr);
    here.fail(
        &["registry", "channel", "withdraw", "chest@2", &channel, "--key", "online.key"],
        3,
        &["offer one first"],
    );
    offer("chest@1", "100");
    assert_eq!(here.json(&["registry", "channel", "show", &channel])["offers"].as_array().map(Vec::len), Some(1));
    assert_eq!(device.json(&agent)["outcomes"][0]["outcome"], "current");

    // Somebody who can write to the mirror, but has no key, changes what is offered.
    let tags = here.path("mirror/tags/channel/stable");
    let timestamp = std::fs::read_to_string(tags.join("timestamp.json")).expect("a tag");
    std::fs::write(tags.join("timestamp.json"), std::fs::read_to_string(tags.join("1.root.json")).expect("a tag"))
        .expect("written");
    let run = device.run(&agent);
    assert!(run.code == 3 && run.stderr.contains("not trusted"), "{}", run.stderr);
    assert_eq!(device.json(&eval)["accuracy"], accuracy, "what is in use stays in use");
    // A channel that says nothing has not said no.
    std::fs::remove_file(tags.join("timestamp.json")).expect("removed");
    let run = device.run(&agent);
    assert!(run.code == 1 && run.stderr.contains("timestamp.json"), "{}", run.stderr);
    std::fs::write(tags.join("timestamp.json"), timestamp).expect("written");
    device.succeed(&agent);
    here.fail(&["registry", "channel", "refresh", &channel, "--key", "root.key"], 3, &["signatures that are needed"]);
}
