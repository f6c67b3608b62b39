//! Parts that are in memory, of a stream or of another store's object, on their way to the store.

use std::sync::Arc;
use std::time::Instant;

use super::assembly::{Assembly, Begun};
use super::{sum, summed_for, tell_end, tell_start};
use crate::engine::Engine;
use crate::error::Result;
use crate::file::{Collected, Content};
use crate::integrity::{Algorithm, Digest};
use crate::options::{Cancel, UploadOptions};
use crate::plan::Part;
use crate::schedule::{Cost, LaneId, RetryScope};
use crate::transport::{PartReceipt, Payload};
use crate::url::S3Url;

/// Sends parts of one upload. Cheap to clone.
#[derive(Clone)]
pub(crate) struct HeldParts {
    engine: Engine,
    url: Arc<S3Url>,
    upload_id: Arc<str>,
    options: Arc<UploadOptions>,
    algorithm: Option<Algorithm>,
    sign: bool,
    scope: RetryScope,
}

impl Assembly<'_> {
    /// What sends parts of `begun` until `cancel`.
    pub(crate) fn held_parts(&self, begun: &Begun, cancel: &Cancel) -> HeldParts {
        HeldParts {
            engine: self.engine.clone(),
            url: Arc::new(self.url.clone()),
            upload_id: begun.upload_id.as_str().into(),
            options: Arc::new(self.options.clone()),
            algorithm: self.algorithm,
            sign: !self.profile.unsigned_payload,
            scope: self.scope.stopped_by(cancel),
        }
    }

    /// What a part takes of the memory that is held in it.
    pub(crate) fn held_cost(part_size_bytes: u64) -> Cost {
        Cost { memory_bytes: Collected::memory_bytes(part_size_bytes) }
    }
}

impl HeldParts {
    /// Sends a part; sums it first, where `digest` is not known.
    pub(crate) async fn send(
        &self,
        lane: LaneId,
        part: Part,
        content: Content,
        digest: Option<Digest>,
    ) -> Result<PartReceipt> {
        let (started, flow) = (Instant::now(), self.scope.flow());
        tell_start(&self.options, part);
        let digest = match (digest, self.algorithm) {
            (None, Some(algorithm)) => Some(sum(&content, algorithm, flow).await?),
            (digest, _) => digest,
        };
        // Signed bytes have to be in one piece; once is enough.
        let content = if self.sign { content.to_bytes()?.into() } else { content };
        let attempt = async |number| {
            let digest = summed_for(number, &content, digest, flow).await?;
            let payload =
                Payload { content: content.clone(), digest, sign: self.sign, flow: flow.clone() };
            let calls = self.engine.calls_on(lane);
            calls.upload_part(&self.url, &self.upload_id, part.number, payload, &self.options).await
        };
        let sending = self.engine.retry().run(&self.scope, Some(part.number), attempt);
        let receipt = sending.await.map_err(|error| error.in_part(part.number))?;
        tell_end(&self.options, part, started);
        Ok(receipt)
    }
}
