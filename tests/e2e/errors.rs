//! Bad input: the culprit and the cure on stderr, the right exit code, nothing on stdout, nothing half-written.

use std::path::Path;

use serde_json::Value;

use super::Program;
use super::program::{sample, short_fit};
use super::update::part;
use crate::support::fixture;

#[test]
fn wrong_usage_is_2_with_a_suggestion() {
    let program = Program::new();
    program.fail(&["fit", "-b", "pocket", "-d", sample(), "-m", "lorra"], 2, &["lorra", "did you mean `lora`?"]);
    program.fail(&["eval", "-b", "pockte", "-d", sample()], 2, &["pockte", "did you mean `pocket`?"]);
    program.fail(&["eval", "-b", "pocket", "-d", sample(), "--device", "cuda"], 1, &["--features cuda"]);
    program.fail(&["eval", "-b", "pocket", "-d", sample(), "--device", "tpu"], 2, &["tpu", "cpu"]);
    program.fail(&["fit", "-b", "pocket", "-d", sample(), "-m", "zzzz"], 2, &["known: ", "linear-probe,", "vita-clip"]);
    program.fail(&["eval", "-b", "clip-b99", "-d", sample()], 2, &["clip-b99", "a folder or a file"]);
    program.fail(&["eval", "--nonsense"], 2, &["--nonsense"]);
    program.fail(&["fit", "-m", "lora", "-d", sample()], 2, &["no backbone", "-b"]);
    program.fail(&["predict", "-b", "pocket", "x.jpg"], 2, &["names of the classes"]);
    program.fail(&short_fit("coop", "1,2,1", "out"), 2, &["seed 1 is given twice"]);
    let streamed = ["stream", "-b", "pocket", "-d", sample(), "--seeds", "7,7"];
    program.fail(&streamed, 2, &["seed 7 is given twice"]);
    let mut arguments = short_fit("lora", "1", "out");
    arguments.extend(["--set", "method.rang=4"]);
    program.fail(&arguments, 2, &["rang"]);
    arguments.truncate(arguments.len() - 1);
    arguments.push("method.targets=[\"image.*.qproj\"]");
    program.fail(&arguments, 2, &["image.*.qproj", "image.blocks.0.q_proj"]);
    assert!(!program.path("out").exists());
}

#[test]
fn an_adapter_of_another_backbone_is_refused_with_3() {
    let program = Program::new();
    program.succeed(&short_fit("coop", "1", "coop"));
    let other = fixture("parity/clip_tiny/quick").display().to_string();
    program.fail(&["eval", "-b", &other, "-d", sample(), "-a", "coop"], 3, &["refused", "pocket", "quick"]);
    let serve = ["serve", "-b", &other, "-a", "coop", "--port", "0"];
    program.fail(&serve, 3, &["error: refused: backbone of adapter `coop`", "inarch backbone show"]);
}

#[test]
fn what_is_given_in_place_of_an_adapter_is_told_from_one() {
    let program = Program::new();
    program.succeed(&short_fit("coop", "1", "run"));
    let eval = |adapter: &'static str| ["eval", "-b", "pocket", "-d", sample(), "-a", adapter];
    program.fail(&eval("run/adapter.safetensors"), 2, &["is a file", "give the folder that it lies in: `run`"]);
    program.succeed(&["encode", "-b", "pocket", "--images", sample(), "-o", "f.safetensors"]);
    program.fail(&eval("f.safetensors"), 2, &["is a file", "inarch convert"]);
    std::fs::create_dir_all(program.path("stopped")).expect("creates");
    std::fs::write(program.path("stopped/state.json"), b"{}").expect("writes");
    program.fail(&eval("stopped"), 1, &["run that was stopped", "inarch fit"]);
    std::fs::create_dir_all(program.path("line/3")).expect("creates");
    std::fs::write(program.path("line/current"), b"3\n").expect("writes");
    program.fail(&eval("line"), 1, &["holds versions", "`line/3`"]);

    // A run keeps its recipe and report to itself.
    let kept = std::fs::read(program.path("run/adapter.json")).expect("reads");
    program.fail(&["combine", "-b", "pocket", "run", "run", "-o", "run"], 2, &["`run` holds a run", "another folder"]);
    assert_eq!(std::fs::read(program.path("run/adapter.json")).expect("reads"), kept);
}

#[test]
fn a_pointer_of_git_lfs_is_told_from_a_damaged_file() {
    let program = Program::new();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 12345\n";
    let backbone = program.path("clip");
    for name in ["tokenizer.json", "model.safetensors"] {
        copy(&fixture("parity/clip_tiny/quick"), &backbone);
        std::fs::write(backbone.join(name), pointer).expect("writes");
        program.fail(&["backbone", "show", "./clip"], 1, &[name, "pointer of Git LFS", "git lfs pull"]);
    }
    std::fs::write(program.path("photo.jpg"), pointer).expect("writes");
    program.fail(&["predict", "-b", "pocket", "--classes", "a,b", "photo.jpg"], 1, &["photo.jpg", "git lfs pull"]);
}

#[test]
fn a_damaged_adapter_is_named() {
    let program = Program::new();
    program.succeed(&short_fit("linear-probe", "1", "probe"));
    let path = program.path("probe/adapter.safetensors");
    let mut bytes = std::fs::read(&path).expect("reads");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(&path, bytes).expect("writes");
    let arguments = ["eval", "-b", "pocket", "-d", sample(), "-a", "probe"];
    program.fail(&arguments, 1, &["adapter.safetensors", "changed or damaged"]);
}

#[test]
fn a_corrupt_image_is_named_or_skipped_and_counted() {
    let program = Program::new();
    let data = program.path("data");
    copy(Path::new(sample()), &data);
    let bad = data.join("test/hat/broken.jpg");
    std::fs::write(&bad, b"this is no image").expect("writes");
    let data = data.display().to_string();
    program.fail(&["eval", "-b", "pocket", "-d", &data], 1, &["broken.jpg", "--on-bad-image skip"]);
    let eval = program.json(&["eval", "-b", "pocket", "-d", &data, "--on-bad-image", "skip"]);
    assert_eq!(eval["n"], 179);
    assert!(eval["skipped"][0].as_str().is_some_and(|path| path.ends_with("broken.jpg")));
    // In every domain of a stream, and named once.
    let stream = ["stream", "-b", "pocket", "-d", &data, "-s", "simple-cil", "--seeds", "1", "-o", "stream"];
    let domains = ["--set", "stream.kind=\"domain-incremental\"", "--set", "stream.corruptions=[\"none\", \"blur\"]"];
    program.fail(&[&stream[..], &domains].concat(), 1, &["broken.jpg", "--on-bad-image skip"]);
    let stream = program.json(&[&stream[..], &domains, &["--on-bad-image", "skip"]].concat());
    assert_eq!(stream["skipped"], eval["skipped"]);

    std::fs::remove_file(&bad).expect("removes");
    std::fs::remove_dir_all(program.path("data/train/hat")).expect("removes");
    std::fs::create_dir(program.path("data/train/hat")).expect("creates");
    program.fail(&["fit", "-b", "pocket", "-d", &data, "-m", "coop", "-o", "out"], 1, &["hat"]);
    assert!(!program.path("out").exists());
}

#[test]
fn training_images_that_cannot_be_read_are_counted_whatever_the_method() {
    let program = Program::new();
    let data = part(&program, "data", &["hat", "shoes"], 0, 4);
    let files = |class: &str| inarch_core::file::list(&Path::new(&data).join("train").join(class)).expect("a folder");
    let images = [files("hat"), files("shoes")].concat();
    // Features that are computed once, towers that run in every step, images that a method starts from.
    let methods = ["linear-probe", "lora", "tip-adapter"];
    let fit = ["fit", "-b", "pocket", "-d", &data, "--on-bad-image", "skip"];
    let short = ["--set", "train.budget={ iterations = 2 }"];
    std::fs::write(&images[0], "no image").expect("a writable folder");
    for method in methods {
        program.succeed(&[&fit[..], &short, &["-m", method, "-o", method]].concat());
        let report: Value =
            inarch_core::file::read_json(&program.path(method).join("report.json"), "report").expect("a report");
        let found = (report["data"]["train"].as_u64(), report["data"]["skipped"].as_array().map(Vec::len));
        assert_eq!(found, (Some(images.len() as u64 - 1), Some(1)), "{method}");
    }
    // Alone in its batch it is a step without an image, wherever that stands in an epoch.
    let single = ["-m", "lora", "--set", "train.batch=1", "--set", "train.budget={ epochs = 3 }", "-o", "single"];
    let single = program.json(&[&fit[..], &single].concat());
    assert_eq!(single["runs"][0]["steps"].as_u64(), Some(3 * (images.len() as u64 - 1)), "and none that was taken");
    images.iter().for_each(|image| std::fs::write(image, "no image").expect("a writable folder"));
    for method in methods {
        let fit = [&fit[..], &short, &["-m", method, "-o", "none"]].concat();
        program.fail(&fit, 1, &["training images", "none of them can be read"]);
    }
    assert!(!program.path("none").exists());
}

/// A folder of results in a folder of classes is a class the next time.
#[test]
fn an_output_in_the_data_is_refused_and_files_that_are_no_images_are_told() {
    let program = Program::new();
    let data = program.path("data");
    copy(Path::new(sample()), &data);
    let inside = "lies in the data set `data`";
    let fit = ["fit", "-b", "pocket", "-d", "data", "-m", "coop", "--shots", "1"];
    for output in ["data", "data/train/runs", "data/../data/new"] {
        program.fail(&[&fit[..], &["-o", output]].concat(), 2, &[inside, "`-o`"]);
    }
    program.fail(&["compare", "-b", "pocket", "-d", "data", "-m", "coop", "-o", "data/all"], 2, &[inside]);
    program.fail(&["corrupt", "-d", "data", "-o", "data/damaged"], 2, &[inside]);
    program.fail(&["update", "data", "--init", "rail", "-b", "pocket", "-d", "data"], 2, &[inside]);
    assert!(!data.join("train/runs").exists() && !data.join("all").exists());
    // In the folder of the data itself the default is refused, too.
    let run =
        program.command(&["fit", "-b", "pocket", "-d", ".", "-m", "coop", "--shots", "1"]).current_dir(&data).output();
    let run = run.expect("the binary starts");
    let stderr = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.code() == Some(2) && stderr.contains("lies in the data set `.`"), "{stderr}");

    let eval = ["eval", "-b", "pocket", "-d", "data", "--resamples", "0"];
    assert_eq!(program.run(&eval).stderr, "");
    for name in ["train/hat/phone.heic", "test/hat/phone.HEIC", "train/hat/.DS_Store", "notes.txt"] {
        std::fs::write(data.join(name), b"x").expect("writes");
    }
    let told = program.run(&eval).stderr;
    assert!(told.contains("passed over: 1 .HEIC, 1 .heic, 1 .txt\n"), "{told}");
}

#[test]
fn a_class_that_cannot_name_a_folder_is_refused_before_one_is_written() {
    let program = Program::new();
    let photo = |class: &str| {
        let photos = inarch_core::file::list(&Path::new(sample()).join("train").join(class)).expect("a class");
        photos[0].display().to_string()
    };
    let rows = format!("path,label,split\n{},../../hat,test\n{},shoes,test\n", photo("hat"), photo("shoes"));
    std::fs::write(program.path("list.csv"), rows).expect("writes");
    let corrupt = ["corrupt", "-d", "list.csv", "-o", "damaged", "--kind", "clean"];
    program.fail(&corrupt, 1, &["`../../hat` cannot name a folder; rename it"]);
    assert!(!program.path("damaged").exists());
}

#[test]
fn missing_and_damaged_inputs_are_named() {
    let program = Program::new();
    program.fail(&["eval", "-b", "pocket", "-d", "nowhere"], 1, &["nowhere"]);
    program.fail(&["eval", "-b", "./nowhere", "-d", sample()], 2, &["nowhere", "config.json"]);
    program.fail(&["predict", "-b", "pocket", "--classes", "a,b", "missing.jpg"], 1, &["missing.jpg"]);

    let backbone = program.path("clip");
    copy(&fixture("parity/clip_tiny/quick"), &backbone);
    let weights = backbone.join("model.safetensors");
    let bytes = std::fs::read(&weights).expect("reads");
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).expect("writes");
    let backbone = backbone.display().to_string();
    program.fail(&["backbone", "show", &backbone], 1, &["model.safetensors", "truncated"]);

    program.succeed(&["encode", "-b", "pocket", "--images", sample(), "-o", "f.safetensors"]);
    let other = fixture("parity/clip_tiny/quick").display().to_string();
    program.fail(&["eval", "-b", &other, "-d", "f.safetensors"], 3, &["refused", "backbone of the features"]);
}

#[test]
fn few_images_unread_images_and_names_with_blanks_are_told() {
    let program = Program::new();
    let data = program.path("my data");
    copy(Path::new(sample()), &data);
    std::fs::write(data.join("test/hat/broken.jpg"), b"this is no image").expect("writes");
    let budget = "train.budget={ iterations = 3 }";
    let fit = ["fit", "-b", "pocket", "-d", "my data", "-m", "coop", "--set", budget, "--on-bad-image", "skip"];
    let run = program.run(&[&fit[..], &["--shots", "999", "-o", "my run"]].concat());
    assert!(run.stderr.contains("note: 10 of 10 classes have fewer than 999 training images"), "{}", run.stderr);
    assert!(run.stdout.contains("test images that could not be read: 1"), "{}", run.stdout);
    assert!(run.stdout.contains("next: inarch eval -b pocket -d 'my data' -a 'my run'\n"), "{}", run.stdout);
    let half = program.run(&[&fit[..], &["--shots", "1", "--subset", "base", "-o", "half"]].concat());
    assert!(
        half.stdout.contains("next: inarch eval -b pocket -d 'my data' --subset base -a half\n"),
        "{}",
        half.stdout
    );
    std::fs::remove_dir_all(data.join("test")).expect("removes");
    let run = program.run(&[&fit[..], &["--shots", "1", "-o", "other"]].concat());
    assert!(run.stdout.contains("next: inarch predict -b pocket -a other IMAGE\n"), "{}", run.stdout);
    assert!(!run.stderr.contains("note:"), "{}", run.stderr);
    program.fail(&["fit", "my data"], 2, &["`my data` is a folder", "`-d`"]);
}

#[cfg(unix)]
#[test]
fn an_output_that_cannot_be_written_is_named() {
    let program = Program::new();
    std::fs::write(program.path("file"), b"").expect("writes");
    program.fail(&short_fit("coop", "1", "file/out"), 1, &["file/out"]);
}

/// What the program writes it renames into place, which would make a file of a device or a pipe.
#[cfg(unix)]
#[test]
fn an_output_that_is_no_file_stays_what_it_is() {
    use std::os::unix::fs::FileTypeExt as _;

    let program = Program::new();
    let socket = program.path("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("binds");
    let encode = ["encode", "-b", "pocket", "--images", sample(), "-o", "socket"];
    program.fail(&encode, 1, &["cannot write `socket`", "no regular file"]);
    program.fail(&[&encode[..], &["--shard", "0/2"]].concat(), 1, &["cannot write `socket`"]);
    assert!(socket.symlink_metadata().expect("is there").file_type().is_socket());
    std::fs::create_dir(program.path("folder")).expect("creates");
    program.fail(&["encode", "-b", "pocket", "--images", sample(), "-o", "folder"], 1, &["`folder`", "is a folder"]);
    drop(listener);
}

/// `/dev/full` takes no byte, as a full disk; a reader that goes away is no fault.
#[cfg(target_os = "linux")]
#[test]
fn a_result_that_cannot_be_printed_is_a_fault_but_a_closed_pipe_is_none() {
    use std::process::Stdio;

    let program = Program::new();
    for arguments in [&["backbone", "list", "--json"][..], &["doctor"], &["--help"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("opens");
        let ended = program.command(arguments).stdout(full).output().expect("the binary starts");
        let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {stderr}");
        for word in ["error: cannot write to stdout", "No space left"] {
            assert!(stderr.contains(word), "{arguments:?}: {stderr}");
        }

        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ended = program.command(arguments).stdout(Stdio::from(writer)).output().expect("the binary starts");
        let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!((ended.status.code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

/// The loss of a linear probe stays finite however large its weights are.
#[test]
fn values_that_ran_away_are_no_adapter() {
    let program = Program::new();
    let mut arguments = short_fit("linear-probe", "1", "wild");
    arguments.extend(["--set", "train.optimizer.lr=1e30"]);
    program.fail(&arguments, 1, &["lower the learning rate", "train.optimizer.lr"]);
    assert!(!program.path("wild/adapter.json").exists());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("creates");
    for path in inarch_core::file::list(from).expect("lists") {
        let into = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &into);
        } else {
            std::fs::copy(&path, into).expect("copies");
        }
    }
}

/// What lies in an artifact or a memory may be nobody else's business.
#[cfg(unix)]
#[test]
fn files_are_readable_by_whom_the_mask_of_the_user_lets_read_them() {
    use std::os::unix::fs::PermissionsExt as _;
    let program = Program::new();
    let fit = ["fit", "-b", "pocket", "-d", sample(), "-m", "simple-cil", "-o"];
    for (mask, mode) in [("077", 0o600), ("022", 0o644), ("002", 0o664)] {
        let plain = program.command(&[&fit[..], &[mask]].concat());
        let mut masked = std::process::Command::new("sh");
        masked
            .args(["-c", &format!("umask {mask}; exec \"$0\" \"$@\"")])
            .arg(plain.get_program())
            .args(plain.get_args());
        masked.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(program.folder());
        assert!(masked.output().expect("a shell").status.success());
        let about = std::fs::metadata(program.path(mask).join("adapter.json")).expect("an adapter");
        assert_eq!(about.permissions().mode() & 0o777, mode, "under {mask}");
    }
}
