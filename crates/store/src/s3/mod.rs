//! The S3 operations, on top of the index.
//!
//! This file is the table of operations; each family has a file of its own. Requests arrive parsed and
//! authenticated by `s3s`, bodies as streams.

// Every operation has the trait's shape, whether it needs all of it or not.
#![allow(clippy::needless_pass_by_value, clippy::unnecessary_wraps)]

mod attributes;
mod buckets;
mod copy;
mod listing;
mod multipart;
mod object;
mod receive;

use std::sync::Arc;

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CopyObjectInput, CopyObjectOutput, CreateBucketInput,
    CreateBucketOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteBucketInput,
    DeleteBucketOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput,
    DeleteObjectsOutput, GetBucketLocationInput, GetBucketLocationOutput, GetBucketVersioningInput,
    GetBucketVersioningOutput, GetObjectAttributesInput, GetObjectAttributesOutput, GetObjectInput,
    GetObjectOutput, GetObjectTaggingInput, GetObjectTaggingOutput, HeadBucketInput,
    HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput, ListBucketsOutput,
    ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsInput, ListObjectsOutput,
    ListObjectsV2Input, ListObjectsV2Output, ListPartsInput, ListPartsOutput, PutObjectInput,
    PutObjectOutput, UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Error, S3Request, S3Response, S3Result};

use crate::index::Index;

/// Where requests end up.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) index: Arc<Index>,
    /// Answered as the buckets' region.
    pub(crate) region: String,
    /// Smallest part but the last, in bytes.
    pub(crate) min_part_bytes: u64,
}

impl Api {
    /// Does what may wait for a disk: on a thread made for that, if the backend has one to wait for.
    async fn commit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Index) -> S3Result<T> + Send + 'static,
    ) -> S3Result<T> {
        if !self.index.storage.blocks() {
            return work(&self.index);
        }
        let index = Arc::clone(&self.index);
        tokio::task::spawn_blocking(move || work(&index)).await.map_err(S3Error::internal_error)?
    }
}

/// Sets the checksum fields that fit the given sums, on any output that has those fields.
macro_rules! set_checksums {
    ($output:expr, $sums:expr, $text:expr) => {
        for sum in $sums {
            let text = Some($text(sum));
            match sum.algorithm {
                $crate::checksum::Algorithm::Crc32 => $output.checksum_crc32 = text,
                $crate::checksum::Algorithm::Crc32c => $output.checksum_crc32c = text,
                $crate::checksum::Algorithm::Crc64Nvme => $output.checksum_crc64nvme = text,
                $crate::checksum::Algorithm::Sha1 => $output.checksum_sha1 = text,
                $crate::checksum::Algorithm::Sha256 => $output.checksum_sha256 = text,
            }
        }
    };
}
use set_checksums;

/// Hands every operation of the trait to the method of that name; `.await` marks those that wait.
macro_rules! operations {
    ($($name:ident($input:ty) -> $output:ty $(, .$wait:tt)?;)*) => {
        #[async_trait::async_trait]
        impl S3 for Api {
            $(async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                Api::$name(self, request) $(.$wait)?
            })*
        }
    };
}

operations! {
    abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput, .await;
    complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput, .await;
    copy_object(CopyObjectInput) -> CopyObjectOutput, .await;
    create_bucket(CreateBucketInput) -> CreateBucketOutput, .await;
    create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput, .await;
    delete_bucket(DeleteBucketInput) -> DeleteBucketOutput, .await;
    delete_object(DeleteObjectInput) -> DeleteObjectOutput, .await;
    delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput, .await;
    get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput;
    get_bucket_versioning(GetBucketVersioningInput) -> GetBucketVersioningOutput;
    get_object(GetObjectInput) -> GetObjectOutput;
    get_object_attributes(GetObjectAttributesInput) -> GetObjectAttributesOutput;
    get_object_tagging(GetObjectTaggingInput) -> GetObjectTaggingOutput;
    head_bucket(HeadBucketInput) -> HeadBucketOutput;
    head_object(HeadObjectInput) -> HeadObjectOutput;
    list_buckets(ListBucketsInput) -> ListBucketsOutput;
    list_multipart_uploads(ListMultipartUploadsInput) -> ListMultipartUploadsOutput;
    list_objects(ListObjectsInput) -> ListObjectsOutput;
    list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output;
    list_parts(ListPartsInput) -> ListPartsOutput;
    put_object(PutObjectInput) -> PutObjectOutput, .await;
    upload_part(UploadPartInput) -> UploadPartOutput, .await;
    upload_part_copy(UploadPartCopyInput) -> UploadPartCopyOutput, .await;
}

/// A size as S3's signed numbers have it; no size here comes near the limit.
fn signed(size_bytes: u64) -> i64 {
    i64::try_from(size_bytes).unwrap_or(i64::MAX)
}

/// A count as S3's signed numbers have it.
fn signed_count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
