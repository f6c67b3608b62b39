//! A look at the shared AWS configuration before it is used: a profile that is not there must be
//! named, where `aws-config` would only find no credentials.

use crate::error::{Error, ErrorKind, Result};
use crate::options::{Credentials, SessionOptions};

/// Whether the profile that was asked for, by the options or by `AWS_PROFILE`, exists. Does not
/// matter, and is not looked at, where the credentials come from elsewhere.
// The types left to `default()` belong to the SDK's insides.
#[allow(clippy::default_trait_access)]
pub(super) async fn check_profile(options: &SessionOptions) -> Result<()> {
    if options.profile.is_none() && !matches!(options.credentials, Credentials::Chain) {
        return Ok(());
    }
    let (files, processes) = (Default::default(), Default::default());
    let found = aws_config::profile::load(&files, &processes, &Default::default(), None).await;
    // What is wrong with the files themselves is told by whoever needs something from them.
    let Ok(found) = found else { return Ok(()) };
    let asked = options.profile.as_deref().unwrap_or_else(|| found.selected_profile());
    // Everybody has a default one, be it empty, and an empty variable means none.
    if matches!(asked, "" | "default") || found.get_profile(asked).is_some() {
        return Ok(());
    }
    let mut known: Vec<_> = found.profiles().collect();
    known.sort_unstable();
    let advice = if known.is_empty() {
        "there are no profiles; make one with: aws configure --profile NAME".to_owned()
    } else {
        format!("there are: {}", known.join(", "))
    };
    let what = "it is not in the AWS configuration";
    Err(Error::new(ErrorKind::InvalidInput, "use the profile", asked, what).advise(advice))
}
