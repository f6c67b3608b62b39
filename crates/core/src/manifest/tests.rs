//! What is read is what was written, or less, or an error: never something else.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

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
    for record in records {
        bytes.extend(encode(record));
    }
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
    assert_eq!(manifest.upload_begun_unix_s, Some(7));
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
fn strays_are_remembered_until_the_end() {
    let mut records = history();
    records.insert(0, Record::Intent { token: "t0".into(), at_unix_s: 5 });
    records.push(Record::Strays { ids: vec!["s".into()] });
    let manifest = decode(&written(&records)).expect("sound").manifest.expect("there");
    assert_eq!(manifest.stray_upload_ids, ["s"]);
    assert!(manifest.open_intents_unix_s.is_empty());
    assert_eq!(manifest.parts.len(), 2);
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
    assert_eq!(decode(b"brigade manifest 3\nwhatever"), Err(Damage::Newer { version: 3 }));
}

#[test]
fn what_cannot_have_happened_is_damage() {
    let intent = || Record::Intent { token: "t".into(), at_unix_s: 7 };
    for (records, why) in [
        (vec![created()], "never meant"),
        (vec![Record::Refused {}], "never meant"),
        (
            vec![intent(), created(), Record::Part { number: 1, sum: None, etag: None }],
            "without the ETag",
        ),
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
    let stored = include_bytes!("../../tests/manifests/stream.v2.manifest");
    let manifest = decode(stored).expect("readable").manifest.expect("there");
    assert_eq!(manifest.transfer.side, Side::Stream {});
    assert!(!manifest.transfer.side.is_resumable() && manifest.transfer.side.is_in_store());
    assert_eq!(manifest.upload_id.as_deref(), Some("an upload id"));
    let stored = include_bytes!("../../tests/manifests/copy.v2.manifest");
    let manifest = decode(stored).expect("readable").manifest.expect("there");
    assert_eq!(manifest.transfer.operation(), Operation::Copy);
    let stored = include_bytes!("../../tests/manifests/download.v1.manifest");
    let manifest = decode(stored).expect("readable").manifest.expect("there");
    assert_eq!(manifest.transfer.operation(), Operation::Download);
    assert_eq!(manifest.parts.len(), 1);
}

/// Something done to the records before they are sealed with the right checksums: what a program with
/// an error in it, or a person with an editor, could have written.
#[derive(Debug, Clone)]
enum Change {
    /// This value becomes that one.
    Set(Index, Value),
    /// This value becomes a copy of another one.
    Copy(Index, Index),
    /// This value goes, with its name.
    Remove(Index),
    /// This record comes once more, there.
    Repeat(Index, Index),
    /// This record goes.
    Drop(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let numbers = prop_oneof![
        prop::sample::select(vec![
            json!(0),
            json!(-1),
            json!(4),
            json!(1.5),
            json!(1e300),
            json!(u32::MAX),
            json!(u64::from(u32::MAX) + 1),
            json!(i64::MIN),
            json!(u64::MAX),
        ]),
        any::<u64>().prop_map(Value::from),
    ];
    let others = prop::sample::select(vec![
        json!(null),
        json!(true),
        json!([]),
        json!({}),
        json!({"base64": "/w=="}),
        json!({"base64": "?"}),
        json!(""),
        json!("AAAAAA=="),
        json!("AAAAAAAAAAA="),
        json!("crc64nvme"),
        json!("md5"),
        json!("upload"),
        json!("download"),
        json!("part"),
        json!("COMPOSITE"),
    ]);
    let index = || any::<Index>();
    prop_oneof![
        4 => (index(), numbers).prop_map(|(at, value)| Change::Set(at, value)),
        4 => (index(), others).prop_map(|(at, value)| Change::Set(at, value)),
        2 => (index(), index()).prop_map(|(from, to)| Change::Copy(from, to)),
        2 => index().prop_map(Change::Remove),
        1 => (index(), index()).prop_map(|(from, to)| Change::Repeat(from, to)),
        1 => index().prop_map(Change::Drop),
    ]
}

/// Where every value in `value` is, itself included.
fn places(value: &Value) -> Vec<String> {
    fn below(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        match value {
            Value::Array(values) => {
                for (i, value) in values.iter().enumerate() {
                    below(value, &format!("{at}/{i}"), found);
                }
            }
            Value::Object(fields) => {
                for (name, value) in fields {
                    below(value, &format!("{at}/{name}"), found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    below(value, "", &mut found);
    found
}

fn apply(change: &Change, records: &mut Value) {
    // Never the list of all records itself, which is the first.
    let place = |at: &Index, records: &Value| {
        let places = places(records);
        at.get(places.get(1..).filter(|some| !some.is_empty()).unwrap_or(&places)).clone()
    };
    let count = |records: &Value| records.as_array().map_or(0, Vec::len);
    match change {
        Change::Set(at, value) => {
            let at = place(at, records);
            *records.pointer_mut(&at).expect("there") = value.clone();
        }
        Change::Copy(from, to) => {
            let (from, to) = (place(from, records), place(to, records));
            let value = records.pointer(&from).expect("there").clone();
            *records.pointer_mut(&to).expect("there") = value;
        }
        Change::Remove(at) => {
            let at = place(at, records);
            let (parent, name) = at.rsplit_once('/').unwrap_or_default();
            if let Some(Value::Object(fields)) = records.pointer_mut(parent) {
                fields.remove(name);
            }
        }
        Change::Repeat(from, to) if count(records) > 0 => {
            let (from, to) = (from.index(count(records)), to.index(count(records)));
            let record = records[from].clone();
            records.as_array_mut().expect("a list").insert(to, record);
        }
        Change::Drop(at) if count(records) > 0 => {
            let at = at.index(count(records));
            records.as_array_mut().expect("a list").remove(at);
        }
        Change::Repeat(..) | Change::Drop(_) => {}
    }
}

/// A manifest of these records, each with the checksum that it must have.
fn sealed(records: &Value) -> Vec<u8> {
    let mut bytes = format!("brigade manifest {FORMAT_VERSION}\n").into_bytes();
    for record in records.as_array().into_iter().flatten() {
        let json = record.to_string();
        bytes.extend(format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes());
    }
    bytes
}

/// The records of a manifest.
fn records_of(manifest: &[u8]) -> Value {
    let text = std::str::from_utf8(manifest).expect("text");
    let json = text.lines().skip(1).map(|line| serde_json::from_str(&line[9..]).expect("JSON"));
    Value::Array(json.collect())
}

proptest! {
    /// The checksum is right and what it is of is not: still no panic, and no part beyond the plan.
    #[test]
    fn records_that_nobody_would_write_do_no_harm(
        is_upload in any::<bool>(),
        changes in proptest::collection::vec(change(), 1..5),
    ) {
        let original = if is_upload {
            written(&history())
        } else {
            include_bytes!("../../tests/manifests/download.v1.manifest").to_vec()
        };
        let mut records = records_of(&original);
        prop_assert_eq!(decode(&sealed(&records)).is_ok(), true);
        for change in &changes {
            apply(change, &mut records);
        }
        let bytes = sealed(&records);
        if let Ok(Decoded { manifest: Some(manifest), valid_bytes }) = decode(&bytes) {
            // What has its checksum is never taken for a torn tail.
            prop_assert_eq!(valid_bytes, bytes.len());
            let plan = manifest.plan();
            prop_assert_eq!(plan.size_bytes(), manifest.transfer.size_bytes);
            prop_assert!(manifest.parts.keys().all(|number| plan.part(*number).is_some()));
            prop_assert!(manifest.claimed_bytes() <= plan.size_bytes());
        }
    }

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
