//! The requests themselves: one method each, from the engine's types to S3's and back.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::Region;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};

use super::body::ANSWER_FACTOR;
use super::classify::classify;
use super::direct::Direct;
use super::place::Places;
use crate::error::{Error, ErrorKind, Place, Result};

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
mod copy;
mod delete;
mod list;
mod read;
mod uploads;
mod versions;
mod write;

pub(crate) use copy::Directives;
pub(crate) use delete::{DELETE, DeleteSum, Named, Refusal};
pub(crate) use list::{LIST, ListPage, ListQuery, ListedObject, PageStart};
pub(crate) use read::Pin;
pub(in crate::transport) use uploads::decoded;
pub(crate) use uploads::{ListedPart, ListedUpload, Pages};
pub use versions::ObjectVersion;
pub(crate) use versions::{LIST_VERSIONS, Marker};
pub(crate) use write::{PartReceipt, Payload, Receipt, TOKEN_NAME};

/// Clients kept for buckets that are elsewhere. More places than that are a store's mistake, and a
/// client is quickly made.
const MAX_ELSEWHERE: usize = 64;

/// S3's calls over one lane's connections.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    home: Client,
    direct: Direct,
    places: Arc<Places>,
    /// Clients for buckets that are elsewhere, over the same connections.
    elsewhere: Arc<Mutex<HashMap<Place, Client>>>,
    stall_timeout: Duration,
}

impl Calls {
    pub(in crate::transport) fn new(
        client: Client,
        direct: Direct,
        places: Arc<Places>,
        stall_timeout: Duration,
    ) -> Self {
        Self { home: client, direct, places, elsewhere: Arc::default(), stall_timeout }
    }

    /// The short way for plain requests to this bucket; none where it is known to be elsewhere.
    pub(crate) fn direct(&self, bucket: &str) -> Option<&Direct> {
        self.places.of(bucket).is_none().then_some(&self.direct)
    }

    /// The client for requests to this bucket.
    fn client(&self, bucket: &str) -> Client {
        let Some(place) = self.places.of(bucket) else { return self.home.clone() };
        let mut elsewhere =
            self.elsewhere.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let make = || {
            let mut config = self.home.config().to_builder();
            if let Some(region) = &place.region {
                config.set_region(Some(Region::new(region.clone())));
            }
            if place.endpoint_url.is_some() {
                config.set_endpoint_url(place.endpoint_url.clone());
                config.set_force_path_style(place.path_style);
            }
            Client::from_conf(config.build())
        };
        if elsewhere.len() >= MAX_ELSEWHERE && !elsewhere.contains_key(&place) {
            elsewhere.clear();
        }
        elsewhere.entry(place.clone()).or_insert_with(make).clone()
    }

    /// Asks whether the bucket is there, and learns its region, where the store tells it. Also the cheapest
    /// way to learn what a store calls itself.
    pub(crate) async fn head_bucket(&self, bucket: &str) -> Result<Option<String>> {
        const OPERATION: &str = "look at";
        let target = format!("s3://{bucket}");
        let request = self.client(bucket).head_bucket().bucket(bucket);
        let answer = async { request.send().await.map_err(|e| classify(OPERATION, &target, e)) };
        Ok(self.answered(OPERATION, &target, answer).await?.bucket_region)
    }

    /// Makes a bucket in the client's region; one that this account owns already is fine.
    pub(crate) async fn create_bucket(&self, bucket: &str) -> Result<()> {
        const OPERATION: &str = "make";
        let target = format!("s3://{bucket}");
        // The first region is the one that must not be named.
        let client = self.client(bucket);
        let region = client.config().region().map(ToString::to_string);
        let place = region.filter(|region| region != "us-east-1").map(|region| {
            let place = BucketLocationConstraint::from(region.as_str());
            CreateBucketConfiguration::builder().location_constraint(place).build()
        });
        let request = client.create_bucket().bucket(bucket);
        let request = request.set_create_bucket_configuration(place);
        let answer = async {
            match request.send().await {
                Ok(_) => Ok(()),
                Err(error) if error.code() == Some("BucketAlreadyOwnedByYou") => Ok(()),
                Err(error) => Err(classify(OPERATION, &target, error)),
            }
        };
        self.answered(OPERATION, &target, answer).await
    }

    /// The answer to a request that carries no body, or that there was none in time.
    fn answered<T>(
        &self,
        operation: &'static str,
        target: &str,
        answer: impl Future<Output = Result<T>>,
    ) -> impl Future<Output = Result<T>> {
        let limit = self.stall_timeout.saturating_mul(ANSWER_FACTOR);
        answered_within(limit, operation, target, answer)
    }
}

fn answered_within<T>(
    limit: Duration,
    operation: &'static str,
    target: &str,
    answer: impl Future<Output = Result<T>>,
) -> impl Future<Output = Result<T>> {
    // The SDK's futures are large, and each one around them would hold them anew.
    let answer = tokio::time::timeout(limit, Box::pin(answer));
    async move {
        answer.await.unwrap_or_else(|_| {
            let detail = format!("no answer for {} s", limit.as_secs());
            Err(Error::new(ErrorKind::Unreachable, operation, target, detail))
        })
    }
}

fn stalled(operation: &'static str, target: &str, limit: Duration) -> Error {
    let detail = format!("no bytes moved for {} s", limit.as_secs());
    Error::new(ErrorKind::Unreachable, operation, target, detail).stalled()
}
