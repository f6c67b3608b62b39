//! The built-in profiles, each as its departures from AWS, and how a store is recognised.
//!
//! What is not listed is as on AWS. Checksum support is judged by what a store does with a value in a
//! header; many of them fail on trailers, which the engine avoids. Where a store takes no checksum, a
//! `Content-MD5` for every part is the proof that it got the bytes, at a core for every 0.5 GiB/s.

use super::{ChecksumSupport, GIB, MIB, StoreProfile, TIB};
use crate::integrity::Algorithm;

type Make = fn() -> StoreProfile;

/// Every built-in profile by name, in the order they are listed to people.
const BUILT_IN: [(&str, Make); 19] = [
    ("aws", StoreProfile::aws),
    ("generic", StoreProfile::generic),
    ("minio", minio),
    ("brigade", brigade),
    ("ceph", ceph),
    ("seaweedfs", seaweedfs),
    ("garage", garage),
    ("r2", r2),
    ("gcs", gcs),
    ("b2", b2),
    ("wasabi", wasabi),
    ("digitalocean", digitalocean),
    ("scaleway", scaleway),
    ("linode", linode),
    ("storj", storj),
    ("oci", oci),
    ("tigris", tigris),
    ("ovh", ovh),
    ("idrive", idrive),
];

/// Endpoint host names by their last labels, and the profile behind them.
const HOSTS: [(&str, &str); 19] = [
    ("amazonaws.com", "aws"),
    ("amazonaws.com.cn", "aws"),
    ("api.aws", "aws"), // dual-stack endpoints of newer regions
    ("r2.cloudflarestorage.com", "r2"),
    ("storage.googleapis.com", "gcs"),
    ("backblazeb2.com", "b2"),
    ("wasabisys.com", "wasabi"),
    ("digitaloceanspaces.com", "digitalocean"),
    ("scw.cloud", "scaleway"),
    ("linodeobjects.com", "linode"),
    ("storjshare.io", "storj"),
    ("oraclecloud.com", "oci"),
    ("oci.customer-oci.com", "oci"), // dedicated endpoints
    ("tigris.dev", "tigris"),        // fly.storage.tigris.dev among them
    ("t3.storage.dev", "tigris"),
    ("your-objectstorage.com", "ceph"), // Hetzner
    ("cloud.ovh.net", "ovh"),
    ("cloud.ovh.us", "ovh"),
    ("idrivee2.com", "idrive"),
];

/// `Server` header values by how they begin, in any case. Only names that a store alone uses: `nginx`
/// or `cloudflare` say what stands before a store, not what it is.
const SERVERS: [(&str, &str); 8] = [
    ("AmazonS3", "aws"),
    ("MinIO", "minio"),
    ("SeaweedFS", "seaweedfs"),
    ("brigade", "brigade"),
    ("UploadServer", "gcs"),
    ("Garage", "garage"),
    ("Ceph", "ceph"),
    ("WasabiS3", "wasabi"),
];

impl StoreProfile {
    /// Amazon S3.
    pub fn aws() -> Self {
        Self {
            name: "aws".into(),
            min_part_size_bytes: 5 * MIB,
            max_part_size_bytes: 5 * GIB,
            max_parts: 10_000,
            // 48.8 TiB; until December 2025 it was 5 TiB.
            max_object_size_bytes: 10_000 * 5 * GIB,
            max_single_put_bytes: 5 * GIB,
            list_page_size: 1000,
            list_encoding: true,
            list_in_order: true,
            delete_page_size: 1000,
            checksums: ChecksumSupport::FullObject,
            // The fastest sum in the engine and, as FULL_OBJECT, comparable with any other tool's.
            default_checksum: Some(Algorithm::Crc32),
            unsigned_payload: true,
            mp_object_size: true,
            // Objects under SSE-KMS or SSE-C have 32 hexadecimal digits that are no MD5.
            etag_is_md5: false,
            conditional_writes: true,
            equal_parts: false,
            multipart_copy: true,
            path_style: None,
        }
    }

    /// A store nobody has described: AWS's limits, nothing relied on that stores often lack.
    pub fn generic() -> Self {
        Self {
            // AWS's former limit, which most stores copied.
            max_object_size_bytes: 5 * TIB,
            // A value per part in a header is what most take; a whole-object type is newer than most.
            checksums: ChecksumSupport::Composite,
            // An unknown header is harmless almost everywhere, an unchecked promise is not.
            mp_object_size: false,
            conditional_writes: false,
            equal_parts: true,
            ..named_like_aws("generic")
        }
    }

    /// A built-in profile by name, in any case: one of [`names`](Self::names).
    pub fn named(name: &str) -> Option<Self> {
        let (_, make) = BUILT_IN.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(make())
    }

    /// The names of the built-in profiles, for help and error messages.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// The profile of the store behind an endpoint's host name (no scheme; a port is ignored), where
    /// the name says which it is. Bucket names in front don't matter.
    ///
    /// ```
    /// use brigade::limits::StoreProfile;
    ///
    /// let profile = StoreProfile::for_endpoint("data.s3.fr-par.scw.cloud:443").expect("known");
    /// assert_eq!((profile.name.as_str(), profile.max_parts), ("scaleway", 1000));
    /// assert_eq!(StoreProfile::for_endpoint("s3.example.com"), None);
    /// ```
    pub fn for_endpoint(host: &str) -> Option<Self> {
        let host =
            host.split(':').next().unwrap_or(host).trim_end_matches('.').to_ascii_lowercase();
        let (_, name) = HOSTS.iter().find(|(known, _)| {
            // Whole labels only: `notscw.cloud` is not `scw.cloud`.
            host.strip_suffix(known).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })?;
        Self::named(name)
    }

    /// The profile of the store that answers with this `Server` header, where the header says which it
    /// is. A hint for endpoints [`for_endpoint`](Self::for_endpoint) does not know.
    pub fn for_server_header(server: &str) -> Option<Self> {
        let server = server.trim_start().to_ascii_lowercase();
        let (_, name) =
            SERVERS.iter().find(|(known, _)| server.starts_with(&known.to_ascii_lowercase()))?;
        Self::named(name)
    }
}

fn named_like_aws(name: &str) -> StoreProfile {
    StoreProfile { name: name.into(), ..StoreProfile::aws() }
}

fn named_like_generic(name: &str) -> StoreProfile {
    StoreProfile { name: name.into(), ..StoreProfile::generic() }
}

/// From January 2025 on, when whole-object checksums came; `generic` serves older releases.
fn minio() -> StoreProfile {
    StoreProfile {
        mp_object_size: false,  // not among the headers it documents
        path_style: Some(true), // host style needs DNS that few installations have
        ..named_like_aws("minio")
    }
}

/// The store of this project.
fn brigade() -> StoreProfile {
    StoreProfile {
        etag_is_md5: true,      // where it spares the MD5, its ETags don't look like one
        path_style: Some(true), // it usually listens on an address, not on a name
        ..named_like_aws("brigade")
    }
}

/// The RADOS gateway. Releases before Squid ignore checksum headers; whole-object CRCs are newer still.
fn ceph() -> StoreProfile {
    StoreProfile {
        path_style: Some(true), // host style only works where `rgw dns name` is set
        ..named_like_generic("ceph")
    }
}

/// Until mid-2026 it made composites of every algorithm, even of CRC64/NVME.
fn seaweedfs() -> StoreProfile {
    StoreProfile {
        list_in_order: false, // keys are paths, and come as a walk through folders finds them
        path_style: Some(true), // host style only works where a domain name is configured
        ..named_like_generic("seaweedfs")
    }
}

fn garage() -> StoreProfile {
    StoreProfile {
        path_style: Some(true), // host style only works where a root domain is configured
        ..named_like_generic("garage")
    }
}

fn r2() -> StoreProfile {
    let largest_upload_bytes = 5 * GIB - 5 * MIB; // its "4.995 GiB", for a part and for a PutObject
    StoreProfile {
        max_part_size_bytes: largest_upload_bytes,
        max_single_put_bytes: largest_upload_bytes,
        max_object_size_bytes: 5 * TIB - 5 * GIB, // its "4.995 TiB"
        // CRC32 exists there as a composite only; CRC64/NVME is the one sum of whole objects.
        default_checksum: Some(Algorithm::Crc64Nvme),
        path_style: Some(true), // buckets whose names hold dots have no certificate
        equal_parts: true,
        ..named_like_generic("r2")
    }
}

fn gcs() -> StoreProfile {
    StoreProfile {
        checksums: ChecksumSupport::None, // it knows x-goog-hash and ignores x-amz-checksum headers
        default_checksum: Some(Algorithm::Md5),
        multipart_copy: false, // no UploadPartCopy; CopyObject takes any size instead
        ..named_like_generic("gcs")
    }
}

fn b2() -> StoreProfile {
    StoreProfile {
        // Its gigabytes are decimal.
        max_part_size_bytes: 5_000_000_000,
        max_single_put_bytes: 5_000_000_000,
        checksums: ChecksumSupport::None, // refused as "Unsupported header" at least until mid-2025
        default_checksum: Some(Algorithm::Md5),
        ..named_like_generic("b2")
    }
}

fn wasabi() -> StoreProfile {
    StoreProfile {
        max_object_size_bytes: 5_000_000_000_000, // "5 terabytes", taken as decimal
        checksums: ChecksumSupport::None, // uploads with any of them were reported to fail in 2025
        default_checksum: Some(Algorithm::Md5),
        ..named_like_generic("wasabi")
    }
}

fn digitalocean() -> StoreProfile {
    named_like_generic("digitalocean")
}

fn scaleway() -> StoreProfile {
    StoreProfile {
        max_parts: 1000,                          // a tenth of AWS's
        max_object_size_bytes: 5_000_000_000_000, // "5 TB", taken as decimal
        conditional_writes: true,                 // documented
        ..named_like_generic("scaleway")
    }
}

fn linode() -> StoreProfile {
    named_like_generic("linode")
}

fn storj() -> StoreProfile {
    StoreProfile {
        min_part_size_bytes: 64 * MIB, // one segment; smaller parts make more of them, each billed
        list_in_order: false, // keys are encrypted on the client's side, and listed in the order of that
        checksums: ChecksumSupport::None, // the gateway keeps no checksum it is sent
        default_checksum: Some(Algorithm::Md5),
        multipart_copy: false, // no UploadPartCopy; CopyObject takes any size instead
        ..named_like_generic("storj")
    }
}

fn oci() -> StoreProfile {
    StoreProfile {
        default_checksum: Some(Algorithm::Crc32c), // CRC32 is refused
        path_style: Some(true), // the namespace takes the place of the bucket in the host name
        ..named_like_generic("oci")
    }
}

fn tigris() -> StoreProfile {
    StoreProfile {
        conditional_writes: true, // documented
        ..named_like_generic("tigris")
    }
}

fn ovh() -> StoreProfile {
    named_like_generic("ovh")
}

fn idrive() -> StoreProfile {
    StoreProfile {
        path_style: Some(true), // its endpoints have no certificate for bucket names
        ..named_like_generic("idrive")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_profile_is_sound_and_found_by_its_name() {
        for name in StoreProfile::names() {
            let profile = StoreProfile::named(name).unwrap();
            assert_eq!(profile.name, name);
            assert_eq!(StoreProfile::named(&name.to_uppercase()), Some(profile.clone()));
            assert_eq!(profile.clone().validated(), Ok(profile.clone()), "{name}");
            // A file that names a base and nothing else is that base.
            assert_eq!(StoreProfile::from_toml(&format!("base = {name:?}")), Ok(profile), "{name}");
        }
        assert_eq!(StoreProfile::named("s3"), None);
    }

    #[test]
    fn every_host_and_server_leads_to_a_profile() {
        for (host, name) in HOSTS {
            assert_eq!(
                StoreProfile::for_endpoint(host).map(|profile| profile.name).as_deref(),
                Some(name)
            );
        }
        for (server, name) in SERVERS {
            let found = StoreProfile::for_server_header(server).map(|profile| profile.name);
            assert_eq!(found.as_deref(), Some(name));
        }
    }

    #[test]
    fn hosts_are_matched_by_whole_labels() {
        let name = |host| StoreProfile::for_endpoint(host).map(|profile| profile.name);
        for (host, expected) in [
            ("s3.eu-west-1.amazonaws.com", "aws"),
            ("bucket.s3.cn-north-1.amazonaws.com.cn", "aws"),
            ("S3.US-EAST-1.AMAZONAWS.COM.", "aws"),
            ("0123abcd.r2.cloudflarestorage.com:443", "r2"),
            ("0123abcd.eu.r2.cloudflarestorage.com", "r2"),
            ("ns.compat.objectstorage.eu-frankfurt-1.oraclecloud.com", "oci"),
            ("fly.storage.tigris.dev", "tigris"),
            ("fsn1.your-objectstorage.com", "ceph"),
            ("s3.gra.io.cloud.ovh.net", "ovh"),
        ] {
            assert_eq!(name(host).as_deref(), Some(expected), "{host}");
        }
        let strangers = [
            "",
            "localhost:9000",
            "127.0.0.1",
            "[::1]:9000",
            "notscw.cloud",
            "amazonaws.com.evil.example",
        ];
        for host in strangers {
            assert_eq!(name(host), None, "{host}");
        }
    }

    #[test]
    fn a_server_header_must_name_a_store() {
        let name = |server| StoreProfile::for_server_header(server).map(|profile| profile.name);
        assert_eq!(name("MinIO/RELEASE.2025-04-22T22-12-26Z").as_deref(), Some("minio"));
        assert_eq!(name("SeaweedFS 30GB 4.21").as_deref(), Some("seaweedfs"));
        assert_eq!(name("WasabiS3/7.24").as_deref(), Some("wasabi"));
        for server in ["", "nginx", "cloudflare", "Apache/2.4"] {
            assert_eq!(name(server), None, "{server}");
        }
    }

    #[test]
    fn nobody_gets_checksums_they_refuse() {
        for name in StoreProfile::names() {
            let profile = StoreProfile::named(name).unwrap();
            // Content-MD5 is no checksum header, and every store takes it.
            let sum = profile.default_checksum.filter(|sum| *sum != Algorithm::Md5);
            let kind = sum.map(|sum| profile.multipart_checksum_type(sum));
            assert_ne!(
                kind,
                Some(None),
                "{name} sends by default what it takes for no multipart upload"
            );
        }
    }
}
