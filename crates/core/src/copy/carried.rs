//! What a copy has from its source besides the bytes, and what was asked for instead.

use crate::options::{CopyOptions, Encryption, UploadOptions};
use crate::transport::{ObjectInfo, TOKEN_NAME};

/// What the copy of an object that looks like `info` will be. Tags are not in it, unless they were given:
/// they cost a request. `is_inside`: both ends are one store. `is_alike`: they are of one kind.
pub(super) fn of(
    info: &ObjectInfo,
    options: &CopyOptions,
    is_inside: bool,
    is_alike: bool,
    endpoint_url: Option<&str>,
) -> UploadOptions {
    let (content_type, headers, mut metadata) = match &options.description {
        Some(asked) => (asked.content_type.clone(), asked.headers.clone(), asked.metadata.clone()),
        None => (info.content_type.clone(), info.headers.clone(), info.metadata.clone()),
    };
    // It tells whose upload the source was.
    metadata.remove(TOKEN_NAME);
    let kept_class = info.storage_class.clone().filter(|_| is_alike);
    let kept_encryption = || if is_inside { encryption(info, endpoint_url) } else { None };
    UploadOptions {
        part_size_bytes: options.part_size_bytes,
        concurrency: options.concurrency,
        checksum: options.checksum,
        verify: options.verify,
        if_none_match: options.if_none_match,
        storage_class: options.storage_class.clone().or(kept_class),
        content_type,
        headers,
        metadata,
        tags: options.tags.clone().unwrap_or_default(),
        encryption: options.encryption.clone().or_else(kept_encryption).unwrap_or_default(),
        resume: options.resume,
        command: options.command.clone(),
        events: options.events.clone(),
        cancel: options.cancel.clone(),
        ..UploadOptions::default()
    }
}

/// How the source is encrypted, as far as it can be asked for again. A customer's key is not carried: who
/// wants the copy to have it gives it.
fn encryption(info: &ObjectInfo, endpoint_url: Option<&str>) -> Option<Encryption> {
    match info.encryption.as_deref()? {
        // AWS encrypts every object so by itself; asked for by name, it would take the place of a key
        // that the target's bucket is configured with.
        "AES256" if endpoint_url.is_some() => Some(Encryption::S3),
        "aws:kms" => Some(Encryption::Kms { key_id: info.kms_key_id.clone() }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Description;

    fn info() -> ObjectInfo {
        ObjectInfo {
            content_type: Some("text/plain".into()),
            storage_class: Some("GLACIER_IR".into()),
            metadata: [("a", "1"), (TOKEN_NAME, "x")].map(|(k, v)| (k.into(), v.into())).into(),
            encryption: Some("aws:kms".into()),
            kms_key_id: Some("key".into()),
            ..ObjectInfo::default()
        }
    }

    #[test]
    fn what_describes_an_object_comes_along() {
        let inside = of(&info(), &CopyOptions::default(), true, true, None);
        assert_eq!(inside.content_type.as_deref(), Some("text/plain"));
        assert_eq!(inside.storage_class.as_deref(), Some("GLACIER_IR"));
        assert_eq!(inside.metadata.keys().collect::<Vec<_>>(), ["a"]);
        let Encryption::Kms { key_id } = &inside.encryption else { panic!("{inside:?}") };
        assert_eq!(key_id.as_deref(), Some("key"));
        let elsewhere = of(&info(), &CopyOptions::default(), false, false, None);
        assert_eq!((elsewhere.metadata.len(), elsewhere.storage_class), (1, None));
        assert!(matches!(elsewhere.encryption, Encryption::BucketDefault));
    }

    #[test]
    fn what_is_asked_for_takes_its_place() {
        let options = CopyOptions {
            description: Some(Description::default()),
            storage_class: Some("STANDARD".into()),
            encryption: Some(Encryption::BucketDefault),
            ..CopyOptions::default()
        };
        let asked = of(&info(), &options, true, true, None);
        assert_eq!((asked.content_type, asked.metadata.len()), (None, 0));
        assert_eq!(asked.storage_class.as_deref(), Some("STANDARD"));
        assert!(matches!(asked.encryption, Encryption::BucketDefault));
    }

    #[test]
    fn amazons_own_encryption_is_left_to_the_bucket() {
        let plain = ObjectInfo { encryption: Some("AES256".into()), ..info() };
        let on = |endpoint| of(&plain, &CopyOptions::default(), true, true, endpoint).encryption;
        assert!(matches!(on(None), Encryption::BucketDefault));
        assert!(matches!(on(Some("http://127.0.0.1:9000")), Encryption::S3));
    }
}
