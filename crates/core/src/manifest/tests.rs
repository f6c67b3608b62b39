use proptest::prelude::*;

use super::*;
use crate::limits::MIB;

fn upload() -> Transfer {
    Transfer {
        endpoint_url: Some("http://127.0.0.1:9000".into()),
        bucket: "bucket".into(),
        key: "a key/with \"quotes\"\nand ü".into(),
        path: Text::from(std::ffi::OsString::from("/data/source.bin")),
        size_bytes: 20 * MIB,
        part_size_bytes: 8 * MIB,
        side: Side::Upload {
            source: SourceState { modified: (1_700_000_000, 5), inode: 42 },
            attributes: Attributes::default(),
        },
        begun_unix_s: 1_700_000_001,
        command: vec![Text::from(std::ffi::OsString::from("cp"))],
    }
}

fn part(number: u32) -> Record {
    let sum = Some("AAAAAA==".to_owned());
    Record::Part { number, sum, etag: Some("\"e\"".into()) }
}

fn created() -> Record {
    let checksum = Some(Algorithm::Crc32);
    Record::Upload { id: "u".into(), checksum, checksum_type: Some(ChecksumType::FullObject) }
}

/// A manifest with these records behind the first.
fn written(records: &[Record]) -> Vec<u8> {
    let mut bytes = encode_first(&Record::Transfer(Box::new(upload())));
    records.iter().for_each(|record| bytes.extend(encode(record)));
    bytes
}

fn history() -> Vec<Record> {
    vec![Record::Intent { token: "t".into(), at_unix_s: 7 }, created(), part(2), part(1), part(2)]
}

#[test]
fn what_was_written_is_read() {
    let bytes = written(&history());
    let decoded = decode(&bytes).expect("sound");
    assert_eq!(decoded.valid_bytes, bytes.len());
    let manifest = decoded.manifest.expect("there");
    assert_eq!(manifest.transfer, upload());
    assert_eq!((manifest.upload_id.as_deref(), manifest.token.as_deref()), (Some("u"), Some("t")));
    assert_eq!(manifest.parts.keys().copied().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(manifest.claimed_bytes(), 16 * MIB);
    assert!(manifest.open_intents_unix_s.is_empty());
}

#[test]
fn an_upload_that_is_begun_again_forgets_the_first() {
    let mut records = history();
    records.push(Record::Intent { token: "t2".into(), at_unix_s: 8 });
    let manifest = decode(&written(&records)).expect("sound").manifest.expect("there");
    assert_eq!((manifest.upload_id, manifest.parts.len()), (None, 0));
    assert_eq!(manifest.open_intents_unix_s, [8]);
}

#[test]
fn a_torn_tail_is_dropped_wherever_it_tears() {
    let bytes = written(&history());
    let whole = decode(&bytes).expect("sound").manifest.expect("there");
    for len in 0..bytes.len() {
        let decoded = decode(&bytes[..len]).unwrap_or_else(|damage| panic!("{len}: {damage}"));
        assert!(decoded.valid_bytes <= len);
        if let Some(manifest) = decoded.manifest {
            assert_eq!(manifest.transfer, whole.transfer);
            assert!(manifest.parts.len() <= whole.parts.len());
        }
    }
    // Blocks that were never written read as zeroes.
    let last = bytes.len() - 10;
    let mut zeroed = bytes.clone();
    zeroed[last..].fill(0);
    zeroed.extend([0; 4096]);
    let decoded = decode(&zeroed).expect("a torn tail");
    assert!(decoded.valid_bytes < last && decoded.manifest.is_some());
    assert_eq!(decode(&[0; 4096]).expect("never written").manifest, None);
}

#[test]
fn damage_is_told_from_a_torn_tail() {
    let mut bytes = written(&history());
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    assert!(matches!(decode(&bytes), Err(Damage::Line { .. })));
    assert_eq!(decode(b"something else\n"), Err(Damage::NotOne));
    assert_eq!(decode(b"something else"), Err(Damage::NotOne));
    assert_eq!(decode(b"brigade manifest 2\nwhatever"), Err(Damage::Newer { version: 2 }));
}

#[test]
fn what_cannot_have_happened_is_damage() {
    let intent = || Record::Intent { token: "t".into(), at_unix_s: 7 };
    for (records, why) in [
        (vec![created()], "never meant"),
        (vec![part(1)], "before there was an upload"),
        (vec![intent(), created(), part(4)], "not in the plan"),
        (vec![intent(), created(), part(0)], "not in the plan"),
        (vec![Record::Transfer(Box::new(upload()))], "a second time"),
    ] {
        let damage = decode(&written(&records)).expect_err("impossible").to_string();
        assert!(damage.contains(why), "{damage}");
    }
    let no_plan = Transfer { part_size_bytes: 0, ..upload() };
    let bytes = encode_first(&Record::Transfer(Box::new(no_plan)));
    assert!(decode(&bytes).expect_err("no plan").to_string().contains("no plan"));
}

#[test]
fn text_that_is_not_utf8_survives() {
    use std::os::unix::ffi::OsStringExt as _;
    let path = Text::from(std::ffi::OsString::from_vec(vec![b'/', 0xff, b'x']));
    let transfer = Transfer { path: path.clone(), ..upload() };
    let bytes = encode_first(&Record::Transfer(Box::new(transfer)));
    let manifest = decode(&bytes).expect("sound").manifest.expect("there");
    assert_eq!(manifest.transfer.path, path);
}

#[test]
fn differences_say_what_differs() {
    let then = upload();
    assert_eq!(then.difference(&upload()), None);
    let elsewhere = Transfer { endpoint_url: None, ..upload() };
    assert!(matches!(then.difference(&elsewhere), Some(Difference::Another(_))));
    let said = |now: Transfer| match then.difference(&now) {
        Some(Difference::Changed(how) | Difference::AskedOtherwise(how)) => how,
        other => panic!("{other:?}"),
    };
    assert!(said(Transfer { size_bytes: 5, ..upload() }).contains("20971520 bytes"));
    let side = |modified, inode, class: Option<&str>| Transfer {
        side: Side::Upload {
            source: SourceState { modified, inode },
            attributes: Attributes {
                storage_class: class.map(str::to_owned),
                ..Attributes::default()
            },
        },
        ..upload()
    };
    assert!(said(side((1, 1), 42, None)).contains("written to"));
    assert!(said(side((1_700_000_000, 5), 1, None)).contains("replaced"));
    assert_eq!(said(side((1_700_000_000, 5), 42, Some("X"))), "storage class");
}

#[test]
fn every_version_that_was_ever_written_is_read() {
    let stored = include_bytes!("../../tests/manifests/upload.v1.manifest");
    let manifest = decode(stored).expect("readable").manifest.expect("there");
    assert_eq!(manifest.transfer.operation(), Operation::Upload);
    assert_eq!(manifest.parts.len(), 2);
    assert_eq!(manifest.upload_id.as_deref(), Some("an upload id"));
    let stored = include_bytes!("../../tests/manifests/download.v1.manifest");
    let manifest = decode(stored).expect("readable").manifest.expect("there");
    assert_eq!(manifest.transfer.operation(), Operation::Download);
    assert_eq!(manifest.parts.len(), 1);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes);
        let mut behind = written(&history());
        behind.extend(&bytes);
        let _ = decode(&behind);
    }

    /// Whatever single change is made, what is read is a part of what was written, or an error.
    #[test]
    fn a_change_is_never_taken_for_a_record(at in 0_usize..2000, to in any::<u8>()) {
        let bytes = written(&history());
        let whole = decode(&bytes).expect("sound").manifest.expect("there");
        let mut changed = bytes.clone();
        let at = at % changed.len();
        changed[at] = to;
        if let Ok(Decoded { manifest: Some(manifest), .. }) = decode(&changed) {
            prop_assert_eq!(&manifest.transfer, &whole.transfer);
            for (number, part) in &manifest.parts {
                prop_assert_eq!(Some(part), whole.parts.get(number));
            }
        }
    }
}
