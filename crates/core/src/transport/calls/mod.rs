//! The requests themselves: one method each, from the engine's types to S3's and back.

use std::future::Future;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};

use super::classify::classify;
use crate::error::{Error, ErrorKind, Result};

/// Sets the three SSE-C headers on a request that takes them.
macro_rules! with_customer_key {
    ($request:expr, $key:expr) => {{
        let key: Option<&CustomerKey> = $key;
        $request
            .set_sse_customer_algorithm(key.map(|_| "AES256".to_owned()))
            .set_sse_customer_key(key.map(CustomerKey::to_base64))
            .set_sse_customer_key_md5(key.map(CustomerKey::md5_base64))
    }};
}

/// The checksums in any reply that can hold all five.
macro_rules! checksums_of {
    ($reply:expr) => {{
        let reply = $reply;
        let declared = reply.checksum_type().and_then(|kind| ChecksumType::named(kind.as_str()));
        parse_all(
            &[
                (Algorithm::Crc32, reply.checksum_crc32()),
                (Algorithm::Crc32c, reply.checksum_crc32_c()),
                (Algorithm::Crc64Nvme, reply.checksum_crc64_nvme()),
                (Algorithm::Sha1, reply.checksum_sha1()),
                (Algorithm::Sha256, reply.checksum_sha256()),
            ],
            declared,
        )
    }};
}

// Below the macros, which they use.
mod read;
mod write;

pub(crate) use read::Pin;
pub(crate) use write::{PartReceipt, Payload, Receipt, TOKEN_NAME};

/// S3's calls over one lane's connections.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    client: Client,
    stall_timeout: Duration,
}

impl Calls {
    pub(in crate::transport) fn new(client: Client, stall_timeout: Duration) -> Self {
        Self { client, stall_timeout }
    }

    /// Asks whether the bucket is there. Also the cheapest way to learn what a store calls itself.
    pub(crate) async fn head_bucket(&self, bucket: &str) -> Result<()> {
        let sent = self.client.head_bucket().bucket(bucket).send();
        sent.await.map(drop).map_err(|e| classify("look at", &format!("s3://{bucket}"), e))
    }

    /// Makes a bucket in the client's region; one that this account owns already is fine.
    pub(crate) async fn create_bucket(&self, bucket: &str) -> Result<()> {
        // The first region is the one that must not be named.
        let region = self.client.config().region().map(ToString::to_string);
        let place = region.filter(|region| region != "us-east-1").map(|region| {
            let place = BucketLocationConstraint::from(region.as_str());
            CreateBucketConfiguration::builder().location_constraint(place).build()
        });
        let request = self.client.create_bucket().bucket(bucket);
        match request.set_create_bucket_configuration(place).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("BucketAlreadyOwnedByYou") => Ok(()),
            Err(error) => Err(classify("make", &format!("s3://{bucket}"), error)),
        }
    }

    async fn answered_in_time<T>(
        &self,
        operation: &'static str,
        target: &str,
        answer: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match tokio::time::timeout(self.stall_timeout, answer).await {
            Ok(result) => result,
            Err(_) => Err(self.stalled(operation, target)),
        }
    }

    fn stalled(&self, operation: &'static str, target: &str) -> Error {
        stalled(operation, target, self.stall_timeout)
    }
}

fn stalled(operation: &'static str, target: &str, limit: Duration) -> Error {
    let detail = format!("no bytes moved for {} s", limit.as_secs());
    Error::new(ErrorKind::Unreachable, operation, target, detail)
}
