//! What a store allows and how it departs from AWS, as data.
//!
//! Every S3-compatible store has its own part sizes, part counts and gaps. The engine never asks which
//! store it talks to; it asks the store's [`StoreProfile`]. A profile comes from a name, the
//! endpoint's host, the `Server` header of a reply, or a TOML file, and the unknown store gets AWS's
//! limits with careful assumptions ([`StoreProfile::generic`]).
//!
//! The sizes people type ([`parse_size`]) and read ([`format_size`]) live here too, as profiles are the
//! first to need them.

mod profiles;
mod size;

use serde::{Deserialize, Serialize};

use crate::integrity::{Algorithm, ChecksumType};

pub(crate) use size::of_all;
pub use size::{format_size, parse_size};

/// 2^10 bytes.
pub const KIB: u64 = 1 << 10;
/// 2^20 bytes.
pub const MIB: u64 = 1 << 20;
/// 2^30 bytes.
pub const GIB: u64 = 1 << 30;
/// 2^40 bytes.
pub const TIB: u64 = 1 << 40;

/// What a store does with the CRC32, CRC32C, SHA-1 and SHA-256 checksums sent to it.
///
/// CRC64/NVME stands apart, as it has but one type: see [`StoreProfile::multipart_checksum_type`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChecksumSupport {
    /// Refuses or ignores checksum headers, so none are sent.
    None,
    /// Checks each part; of a multipart object it keeps the composite at most.
    Composite,
    /// Also takes a CRC of the whole object when a multipart upload completes.
    FullObject,
}

/// What a store allows and how it departs from AWS. All sizes are in bytes.
///
/// The default is AWS. [`from_toml`](Self::from_toml) reads the same field names.
///
/// ```
/// use brigade::limits::{MIB, StoreProfile};
///
/// let profile = StoreProfile::for_endpoint("gateway.storjshare.io").expect("a built-in one");
/// assert_eq!(profile.min_part_size_bytes, 64 * MIB);
/// assert_eq!(profile.max_parts, StoreProfile::aws().max_parts);
/// ```
// Each flag is one independent yes or no about a store; states would only hide that.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreProfile {
    /// What messages call it.
    pub name: String,
    /// The smallest part of a multipart upload, the last excepted. At least 1.
    #[serde(deserialize_with = "size::deserialize")]
    pub min_part_size_bytes: u64,
    /// The largest part.
    #[serde(deserialize_with = "size::deserialize")]
    pub max_part_size_bytes: u64,
    /// The most parts of one upload. At least 1.
    pub max_parts: u32,
    /// The largest object. Parts may limit it further: see
    /// [`largest_object_bytes`](Self::largest_object_bytes).
    #[serde(deserialize_with = "size::deserialize")]
    pub max_object_size_bytes: u64,
    /// The largest object that one `PutObject` may bring.
    #[serde(deserialize_with = "size::deserialize")]
    pub max_single_put_bytes: u64,
    /// Keys asked for in one page of a listing. 1 to 1,000.
    pub list_page_size: u32,
    /// Knows `encoding-type=url` in listings, without which keys with control characters cannot be listed.
    pub list_encoding: bool,
    /// Lists keys in the byte order of their UTF-8, so that a listing can be split and compared as it comes.
    pub list_in_order: bool,
    /// Keys in one `DeleteObjects` request. 1 to 1,000.
    pub delete_page_size: u32,
    /// What becomes of the checksums sent along.
    pub checksums: ChecksumSupport,
    /// The checksum to send when none is asked for. MD5 means a `Content-MD5` for every part, which
    /// is what a file gets that says `checksums = "none"`; `None` (in files `"none"`) sends none.
    #[serde(with = "optional_algorithm")]
    pub default_checksum: Option<Algorithm>,
    /// Takes `UNSIGNED-PAYLOAD`, so that no SHA-256 over every byte is needed.
    pub unsigned_payload: bool,
    /// Checks `x-amz-mp-object-size` on completion, so it is sent.
    pub mp_object_size: bool,
    /// An `ETag` that looks like an MD5, of an object put whole or in parts, certainly is one, so that a
    /// mismatch means corruption.
    pub etag_is_md5: bool,
    /// Keeps `If-None-Match` and `If-Match` on writes; where not, "no clobber" is a promise it can't keep.
    pub conditional_writes: bool,
    /// Wants all parts of an upload but the last to be of one size.
    pub equal_parts: bool,
    /// Has `UploadPartCopy`; where not, larger objects can't be copied inside the store.
    pub multipart_copy: bool,
    /// Whether the bucket goes into the path (`true`) or the host name (`false`) of a URL; `None`
    /// leaves it to the endpoint: host style on AWS, path style on every endpoint of one's own.
    pub path_style: Option<bool>,
}

impl Default for StoreProfile {
    fn default() -> Self {
        Self::aws()
    }
}

impl StoreProfile {
    /// Reads a profile from a TOML file's text: `base = "minio"` to start from a built-in one (AWS
    /// where absent), and any field of this type. Sizes are integers in bytes or strings such as
    /// `"64MiB"`.
    ///
    /// # Errors
    /// One line that names the field and what it should be.
    ///
    /// ```
    /// use brigade::limits::{MIB, StoreProfile};
    ///
    /// let profile = StoreProfile::from_toml(
    ///     r#"
    ///     base = "minio"
    ///     name = "archive"
    ///     min_part_size_bytes = "64MiB"
    ///     max_parts = 1000
    ///     "#,
    /// )?;
    /// assert_eq!(profile.min_part_size_bytes, 64 * MIB);
    /// assert!(StoreProfile::from_toml("max_part = 1").unwrap_err().contains("max_part"));
    /// # Ok::<(), String>(())
    /// ```
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let mut given: toml::Table = toml::from_str(text).map_err(|error| located(text, &error))?;
        let base = match given.remove("base") {
            None => Self::aws(),
            Some(toml::Value::String(name)) => Self::named(&name).ok_or_else(|| {
                let names: Vec<_> = Self::names().collect();
                format!("base = {name:?} is not a built-in profile; they are {}", names.join(", "))
            })?,
            Some(other) => {
                return Err(format!(
                    "base is a TOML {}, not the name of a profile",
                    other.type_str()
                ));
            }
        };
        // The base's own checksum makes no sense once the file says that checksums are refused.
        let implied = given.get("checksums").and_then(toml::Value::as_str) == Some("none")
            && !given.contains_key("default_checksum");
        // The fields given replace the base's; what remains is checked as one whole.
        let mut whole =
            toml::Table::try_from(&base).map_err(|error| one_line(&error.to_string()))?;
        whole.extend(given);
        if implied {
            whole.insert("default_checksum".into(), "md5".into());
        }
        // A whole error's text, not its message alone, says which field a value belongs to.
        let misread = |error: toml::de::Error| one_line(&error.to_string());
        let profile: Self = whole.try_into().map_err(misread)?;
        profile.validated()
    }

    /// The largest object that both the object limit and the parts allow, in bytes.
    pub fn largest_object_bytes(&self) -> u64 {
        let in_parts = self.max_part_size_bytes.saturating_mul(self.max_parts.into());
        self.max_object_size_bytes.min(in_parts)
    }

    /// The type to ask for when a multipart upload is created with `algorithm`; `None` where the
    /// store takes no such checksum for one.
    ///
    /// CRC64/NVME exists as a full-object checksum only, SHA-1 and SHA-256 as composites only. CRC32
    /// and CRC32C are what [`checksums`](Self::checksums) says.
    pub fn multipart_checksum_type(&self, algorithm: Algorithm) -> Option<ChecksumType> {
        let both = algorithm.supports_full_object() && algorithm.supports_composite();
        match self.checksums {
            ChecksumSupport::None => None,
            ChecksumSupport::Composite if both => Some(ChecksumType::Composite),
            _ if algorithm.supports_full_object() => Some(ChecksumType::FullObject),
            _ if algorithm.supports_composite() => Some(ChecksumType::Composite),
            _ => None,
        }
    }

    fn validated(self) -> Result<Self, String> {
        let (min, max) = (self.min_part_size_bytes, self.max_part_size_bytes);
        let page = |name, value| {
            if (1..=1000).contains(&value) {
                Ok(())
            } else {
                Err(format!("{name} is {value}; it must be 1 to 1000, as S3 pages hold no more"))
            }
        };
        if min == 0 {
            return Err("min_part_size_bytes is 0; it must be at least 1".into());
        }
        if min > max {
            return Err(format!(
                "min_part_size_bytes is {}, more than max_part_size_bytes, {}",
                format_size(min),
                format_size(max)
            ));
        }
        if self.max_parts == 0 {
            return Err("max_parts is 0; it must be at least 1".into());
        }
        if self.max_object_size_bytes == 0 {
            return Err("max_object_size_bytes is 0; it must be at least 1".into());
        }
        page("list_page_size", self.list_page_size)?;
        page("delete_page_size", self.delete_page_size)?;
        match self.default_checksum {
            // A Content-MD5, which is no checksum header.
            Some(Algorithm::Md5) => Ok(self),
            Some(algorithm) if self.checksums == ChecksumSupport::None => Err(format!(
                "default_checksum is {algorithm}, but checksums is none; use md5 or none"
            )),
            _ => Ok(self),
        }
    }
}

/// `"none"` for `None`: TOML has no null, and an absent field means the base's value.
mod optional_algorithm {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use crate::integrity::Algorithm;

    // The signature serde's `with` calls for.
    #[allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref)]
    pub(super) fn serialize<S: Serializer>(
        algorithm: &Option<Algorithm>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(algorithm.map_or("none", Algorithm::name))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Algorithm>, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name == "none" { Ok(None) } else { name.parse().map(Some).map_err(D::Error::custom) }
    }
}

/// A syntax error with the line it is on.
fn located(text: &str, error: &toml::de::Error) -> String {
    let message = one_line(error.message());
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {message}", before.lines().count().max(1)),
        None => message,
    }
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_changes_only_what_it_names() {
        let profile = StoreProfile::from_toml(
            r#"
            base = "storj"
            name = "mine"
            max_part_size_bytes = "1GiB"
            max_parts = 500
            path_style = true
            "#,
        )
        .unwrap();
        let expected = StoreProfile {
            name: "mine".into(),
            max_part_size_bytes: GIB,
            max_parts: 500,
            path_style: Some(true),
            ..StoreProfile::named("storj").unwrap()
        };
        assert_eq!(profile, expected);
        assert_eq!(profile.largest_object_bytes(), 500 * GIB);
        assert_eq!(StoreProfile::from_toml(""), Ok(StoreProfile::aws()));
    }

    #[test]
    fn the_documented_example_is_a_profile() {
        let page = include_str!("../../../../docs/COMPATIBILITY.md");
        let example = page.split("```toml").nth(1).and_then(|rest| rest.split("```").next());
        let profile = StoreProfile::from_toml(example.unwrap()).unwrap();
        assert_eq!((profile.name.as_str(), profile.max_parts), ("archive", 1000));
        for name in StoreProfile::names() {
            assert!(page.contains(&format!("`{name}`")), "{name} is not on the page");
        }
    }

    #[test]
    fn checksums_can_be_turned_off_and_chosen() {
        let checksum = |text| StoreProfile::from_toml(text).map(|profile| profile.default_checksum);
        assert_eq!(checksum("checksums = 'none'"), Ok(Some(Algorithm::Md5)));
        assert_eq!(checksum("default_checksum = 'none'"), Ok(None));
        assert_eq!(checksum("default_checksum = 'SHA256'"), Ok(Some(Algorithm::Sha256)));
    }

    #[test]
    fn what_is_wrong_in_a_file_is_said_in_one_line() {
        for (text, expected) in [
            ("max_part_size = 1", "unknown field `max_part_size`"),
            ("name = 'x'\nmax_parts = ", "line 2"),
            ("base = 's4'", "\"s4\" is not a built-in profile; they are aws, generic, minio"),
            ("base = 7", "base is a TOML integer"),
            ("min_part_size_bytes = 'small'", "\"small\" is not a size"),
            ("min_part_size_bytes = -1", "integer `-1`"),
            ("min_part_size_bytes = 1.5", "floating point"),
            ("min_part_size_bytes = 0", "must be at least 1"),
            ("min_part_size_bytes = '6GiB'", "more than max_part_size_bytes, 5.0 GiB"),
            ("max_parts = 0", "must be at least 1"),
            ("max_parts = -5", "max_parts"),
            ("max_object_size_bytes = 0", "must be at least 1"),
            ("list_page_size = 5000", "1 to 1000"),
            ("delete_page_size = 0", "1 to 1000"),
            ("default_checksum = 'xxhash3'", "crc64nvme"),
            ("checksums = 'none'\ndefault_checksum = 'crc32'", "checksums is none"),
            ("checksums = 'some'", "full-object"),
            ("path_style = 'yes'", "path_style"),
        ] {
            let error = StoreProfile::from_toml(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_type_of_a_multipart_checksum_follows_store_and_algorithm() {
        use ChecksumType::{Composite, FullObject};
        let kind = |store: &str, algorithm| {
            StoreProfile::named(store).unwrap().multipart_checksum_type(algorithm)
        };
        assert_eq!(kind("aws", Algorithm::Crc32), Some(FullObject));
        assert_eq!(kind("aws", Algorithm::Sha256), Some(Composite));
        assert_eq!(kind("aws", Algorithm::Md5), None);
        assert_eq!(kind("r2", Algorithm::Crc32), Some(Composite));
        assert_eq!(kind("r2", Algorithm::Crc64Nvme), Some(FullObject));
        assert_eq!(kind("gcs", Algorithm::Crc32), None);
    }
}
