//! `brigade cat` as meant.

use anyhow::Result;
use brigade::{DownloadOptions, SessionOptions};

use super::{Chosen, cp, session};
use crate::args::CatArgs;
use crate::environment::Environment;
use crate::failure::Usage;

/// What to print.
#[derive(Debug)]
pub(crate) struct Printing {
    pub(crate) session: SessionOptions,
    pub(crate) chosen: Vec<Chosen>,
    /// For each object. They still lack who listens and who may cancel.
    pub(crate) options: DownloadOptions,
    /// What the person should hear first.
    pub(crate) warnings: Vec<&'static str>,
}

impl Printing {
    pub(crate) fn from_args(args: &CatArgs, environment: &Environment) -> Result<Self> {
        let choose = |typed: &String| Chosen::parse(typed, !args.no_glob, false);
        let chosen = args.urls.iter().map(choose).collect::<Result<Vec<_>>>()?;
        let is_prefix = |it: &&Chosen| matches!(it, Chosen::One(url) if url.is_prefix());
        if let Some(prefix) = chosen.iter().find(is_prefix) {
            return Err(Usage::error(format!(
                "{prefix} names a bucket or a prefix, not an object; name a key, or all below it with \
                 {prefix}{}**",
                if prefix.prefix().is_empty() && !prefix.to_string().ends_with('/') {
                    "/"
                } else {
                    ""
                }
            )));
        }
        if args.version_id.is_some() && !matches!(chosen.as_slice(), [Chosen::One(_)]) {
            return Err(Usage::error("--version-id is for one key; name that key alone"));
        }
        let (file, variable) = (&args.key.sse_c_key_file, &args.key.sse_c_key_env);
        let options = DownloadOptions {
            part_size_bytes: args.part_size,
            concurrency: args.concurrency.map(usize::from),
            verify: cp::verify(args.verify),
            version_id: args.version_id.clone(),
            customer_key: cp::customer_key(
                file.as_deref(),
                variable.as_deref(),
                "--sse-c-key-env",
                environment,
            )?,
            ..DownloadOptions::default()
        };
        Ok(Self {
            session: session::options(&args.store, environment)?,
            chosen,
            options,
            warnings: session::warnings(&args.store),
        })
    }
}
