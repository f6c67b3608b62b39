//! `brigade stat` as meant.

use anyhow::Result;
use brigade::{CustomerKey, S3Url, SessionOptions};

use super::{cp, session};
use crate::args::StatArgs;
use crate::environment::Environment;
use crate::failure::Usage;

/// What to look at.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) session: SessionOptions,
    /// Objects and, where there is no key, buckets.
    pub(crate) urls: Vec<S3Url>,
    pub(crate) version_id: Option<String>,
    pub(crate) customer_key: Option<CustomerKey>,
    /// What the person should hear first.
    pub(crate) warnings: Vec<&'static str>,
}

impl Look {
    pub(crate) fn from_args(args: &StatArgs, environment: &Environment) -> Result<Self> {
        let urls: Vec<S3Url> =
            args.urls.iter().map(|typed| typed.parse()).collect::<Result<_, _>>()?;
        let is_one_key = matches!(urls.as_slice(), [url] if !url.key().is_empty());
        if args.version_id.is_some() && !is_one_key {
            return Err(Usage::error("--version-id is for one key; name that key alone"));
        }
        let (file, variable) = (&args.key.sse_c_key_file, &args.key.sse_c_key_env);
        Ok(Self {
            session: session::options(&args.store, environment)?,
            urls,
            version_id: args.version_id.clone(),
            customer_key: cp::customer_key(
                file.as_deref(),
                variable.as_deref(),
                "--sse-c-key-env",
                environment,
            )?,
            warnings: session::warnings(&args.store),
        })
    }
}
