//! PyTorch files that mean harm: each ends in an error that names the file, within the memory that the file has.

use std::io::Write as _;
use std::path::PathBuf;

use inarch_core::Error;
use inarch_core::checkpoint::{TorchValue, read_torch};
use tempfile::TempDir;

use super::file;

/// A zip archive of stored entries, as PyTorch writes it. `method` is the number of a compression.
fn archive(entries: &[(&str, &[u8])], method: u16) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let mut common = Vec::new();
        let checksum = checksum(data);
        common.extend([20u16.to_le_bytes(), 0u16.to_le_bytes(), method.to_le_bytes(), [0, 0], [0, 0]].concat());
        common.extend([checksum, data.len() as u32, data.len() as u32].map(u32::to_le_bytes).concat());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        directory.extend([b"PK\x01\x02\x14\x00", &common[..]].concat());
        directory.extend([&[0; 10][..], &(bytes.len() as u32).to_le_bytes(), name.as_bytes()].concat());
        bytes.extend([b"PK\x03\x04", &common[..], name.as_bytes(), data].concat());
    }
    let (start, count) = (bytes.len() as u32, (entries.len() as u16).to_le_bytes());
    bytes.extend(&directory);
    bytes.extend([b"PK\x05\x06\x00\x00\x00\x00", &count[..], &count].concat());
    bytes.extend([(directory.len() as u32).to_le_bytes(), start.to_le_bytes()].concat());
    bytes.extend([0, 0]);
    bytes
}

fn checksum(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

fn written(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("hostile.pt");
    std::fs::File::create(&path).and_then(|mut file| file.write_all(bytes)).expect("a writable folder");
    (folder, path)
}

#[track_caller]
fn refused(bytes: &[u8], words: &[&str]) {
    let (_folder, path) = written(bytes);
    let error = read_torch(&path).map(drop).expect_err("a hostile file");
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
    let message = error.to_string();
    for word in words.iter().chain(&["hostile.pt"]) {
        assert!(message.contains(word), "`{word}` is missing in: {message}");
    }
}

/// A pickle that makes a tensor of such a shape over `count` stored f32.
fn tensor(shape: [u32; 2], strides: [u32; 2], count: u32) -> Vec<u8> {
    let mut bytes =
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n".to_vec();
    bytes.extend(b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ");
    bytes.extend([&count.to_le_bytes()[..], b"tQK\x00"].concat());
    for pair in [shape, strides] {
        bytes.extend([b"J", &pair[0].to_le_bytes()[..], b"J", &pair[1].to_le_bytes(), b"\x86"].concat());
    }
    bytes.extend(b"\x89ccollections\nOrderedDict\n)RtR.");
    bytes
}

#[test]
fn what_pytorch_writes_is_read() {
    let numbers: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let bytes = archive(&[("a/data.pkl", &tensor([2, 2], [2, 1], 4)), ("a/data/0", &numbers)], 0);
    let (_folder, path) = written(&bytes);
    let TorchValue::Tensor(found) = read_torch(&path).expect("a plain file") else { panic!("no tensor") };
    assert_eq!((found.shape, found.data), (vec![2, 2], vec![1.0, 2.0, 3.0, 4.0]));

    let value = read_torch(&file("coop.pth.tar")).expect("a checkpoint");
    assert_eq!(value.get("epoch"), Some(&TorchValue::Int(50)));
    assert_eq!(value.get("val_result").and_then(TorchValue::number), Some(61.5));
    let schedule = value.get("scheduler").and_then(|scheduler| scheduler.get("successor"));
    let expected = TorchValue::Object("torch.optim.lr_scheduler.CosineAnnealingLR".into());
    assert_eq!(schedule, Some(&expected), "an object is a name and nothing more");
}

#[test]
fn a_call_of_anything_else_is_refused_by_name() {
    for (pickle, name) in [
        (&b"cposix\nsystem\n(X\x04\x00\x00\x00evilt\x52."[..], "posix.system"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", "builtins.eval"),
        (b"csubprocess\nPopen\n)\x81.", "subprocess.Popen"),
        (b"ctorch\nload\n)R.", "torch.load"),
        (b"ctorch.optim\nSGD\n)R.", "torch.optim.SGD"),
        (b"}X\x01\x00\x00\x00acnt\nsystem\ns.", "nt.system"),
    ] {
        refused(&archive(&[("a/data.pkl", pickle)], 0), &[name, "allowed names"]);
        let mut stream = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
        stream.extend(b"\x80\x02M\xe9\x03.\x80\x02}X\x0d\x00\x00\x00little_endian\x88s.");
        stream.extend(pickle);
        refused(&stream, &[name]);
    }
}

#[test]
fn nothing_unfolds_to_more_than_the_file() {
    let numbers = [0u8; 256];
    let with = |pickle: &[u8]| archive(&[("a/data.pkl", pickle), ("a/data/0", &numbers)], 0);
    refused(&with(&tensor([60_000, 60_000], [0, 0], 64)), &["reaches beyond"]);
    refused(&with(&tensor([2, 2], [2, 1], 1_000_000)), &["reaches beyond"]);
    refused(&with(&tensor([i32::MAX as u32; 2], [i32::MAX as u32; 2], 64)), &["reaches beyond"]);
    refused(&archive(&[("a/data.pkl", &tensor([2, 2], [2, 1], 4))], 0), &["missing"]);
    refused(&archive(&[("a/data.pkl", b"\x80\x02}.")], 8), &["compressed"]);
    // The same tensor ten thousand times over.
    let mut pickle = b"(".to_vec();
    pickle.extend(&tensor([8, 8], [8, 1], 64)[2..]);
    pickle.pop();
    pickle.extend(b"q\x00");
    (0..10_000).for_each(|_| pickle.extend(b"h\x00"));
    pickle.extend(b"t.");
    refused(&with(&pickle), &["without end"]);
    let mut deep = vec![b']'; 100_000];
    deep.extend(vec![b'a'; 99_999]);
    deep.push(b'.');
    refused(&with(&deep), &["without end"]);
    refused(&with(b"\x80\x02X\xff\xff\xff\x7fshort."), &["too early"]);
    refused(&with(b"\x80\x02]q\x00h\x00a."), &["without end"]);
}

#[test]
fn other_containers_are_told_apart() {
    refused(b"", &["no PyTorch file"]);
    refused(&[0; 600], &["no PyTorch file"]);
    let mut tar = vec![0; 600];
    tar[257..262].copy_from_slice(b"ustar");
    refused(&tar, &["tar archive"]);
    refused(&archive(&[("a/version", b"3")], 0), &["data.pkl"]);
    refused(&archive(&[("a/constants.pkl", b"\x80\x02)."), ("a/data.pkl", b"\x80\x02}.")], 0), &["TorchScript"]);
    refused(&archive(&[("a/byteorder", b"big"), ("a/data.pkl", b"\x80\x02}.")], 0), &["big-endian"]);
    // A cut at any place is an error, never a panic.
    for name in ["coop.pth.tar", "coop-old.pth.tar", "keys_2shots.pt"] {
        let whole = std::fs::read(file(name)).expect("a fixture");
        for part in 0..40 {
            let (_folder, path) = written(&whole[..whole.len() * part / 40]);
            assert!(read_torch(&path).is_err(), "{name}: {part} parts of 40");
        }
        // So is a flipped byte, or it changes a number.
        for at in (0..whole.len()).step_by(whole.len() / 300 + 1) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0xff;
            let (_folder, path) = written(&flipped);
            drop(read_torch(&path));
        }
    }
}
