//! How to reach the store: the store options and the environment as the engine's session options.
//!
//! The engine reads no environment beyond what AWS's own configuration does, so certificates and
//! proxies, which every command-line tool takes from there, are resolved here.

use std::path::{Path, PathBuf};

use anyhow::Result;
use brigade::limits::StoreProfile;
use brigade::{Credentials, Proxies, RetryOptions, SessionOptions};

use crate::args::{SourceArgs, StoreArgs};
use crate::environment::Environment;
use crate::failure::Usage;
use crate::machine;

/// The session options that `args` and `environment` mean.
pub(super) fn options(args: &StoreArgs, environment: &Environment) -> Result<SessionOptions> {
    let defaults = SessionOptions::default();
    Ok(SessionOptions {
        endpoint_url: args.endpoint_url.clone(),
        region: args.region.clone(),
        profile: args.profile.clone(),
        credentials: if args.no_sign_request { Credentials::Anonymous } else { Credentials::Chain },
        store_profile: args.store_profile.as_deref().map(profile).transpose()?,
        force_path_style: args.force_path_style.then_some(true),
        ca_bundle: args
            .ca_bundle
            .clone()
            .or_else(|| environment.path("AWS_CA_BUNDLE").map(Into::into)),
        verify_tls: !args.no_verify_ssl,
        proxies: proxies(environment),
        stall_timeout: args.stall_timeout.unwrap_or(defaults.stall_timeout),
        retry: RetryOptions {
            max_attempts: args.retries.map_or(defaults.retry.max_attempts, |retries| retries + 1),
            outage: args.retry_for,
            ..defaults.retry
        },
        manifest_folder: manifest_folder(args.manifest_dir.as_deref(), environment),
        memory_limit_bytes: args.memory_limit.or_else(machine::scarce_memory_bytes),
        bandwidth_limit_bytes_per_s: args.bandwidth_limit,
        ..defaults
    })
}

/// How the source of a copy is reached, where that is not the target's session: what is not said of it is
/// as if it had not been said of the target either.
pub(super) fn of_source(
    from: &SourceArgs,
    target: &StoreArgs,
    environment: &Environment,
) -> Result<Option<SessionOptions>> {
    if !from.is_elsewhere() {
        return Ok(None);
    }
    let args = StoreArgs {
        endpoint_url: from.source_endpoint_url.clone(),
        region: from.source_region.clone(),
        profile: from.source_profile.clone(),
        store_profile: from.source_store_profile.clone(),
        no_sign_request: from.source_no_sign_request,
        force_path_style: target.force_path_style,
        ca_bundle: target.ca_bundle.clone(),
        no_verify_ssl: target.no_verify_ssl,
        retries: target.retries,
        retry_for: target.retry_for,
        stall_timeout: target.stall_timeout,
        ..StoreArgs::default()
    };
    // Nothing is recorded of a source, and the target's session counts the bytes.
    Ok(Some(SessionOptions { manifest_folder: None, ..options(&args, environment)? }))
}

/// What the person should hear before a store is reached so.
pub(super) fn warnings(args: &StoreArgs) -> Vec<&'static str> {
    let mut warnings = Vec::new();
    if args.no_verify_ssl {
        warnings.push(
            "the store's certificate is not checked (--no-verify-ssl): anyone on the way can read \
             and change what is moved",
        );
    }
    warnings
}

/// Where unfinished transfers are recorded: as asked, else where the XDG Base Directory Specification
/// has a user's state. `None` on a machine that names no home.
pub(crate) fn manifest_folder(given: Option<&Path>, environment: &Environment) -> Option<PathBuf> {
    if let Some(given) = given {
        return Some(given.to_owned());
    }
    // A relative one is to be ignored, as the specification has it.
    let absolute =
        |name: &str| environment.path(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local").join("state")))?;
    Some(state.join("brigade"))
}

/// A built-in profile by its name, else a file. Names win: a file of that name is written ./name.
fn profile(typed: &Path) -> Result<StoreProfile> {
    if let Some(profile) = typed.to_str().and_then(StoreProfile::named) {
        return Ok(profile);
    }
    if !typed.exists() {
        let names: Vec<_> = StoreProfile::names().collect();
        return Err(Usage::error(format!(
            "--store-profile {} is neither a file nor a built-in profile; those are {}",
            typed.display(),
            names.join(", ")
        )));
    }
    let text = std::fs::read_to_string(typed)
        .map_err(|source| brigade::Error::io("read the store profile", typed, source))?;
    StoreProfile::from_toml(&text)
        .map_err(|why| Usage::error(format!("--store-profile {}: {why}", typed.display())))
}

/// As curl reads them: the lower-case name first.
fn proxies(environment: &Environment) -> Proxies {
    let read = |lower: &str, upper: &str| {
        environment.text(lower).or_else(|| environment.text(upper)).map(str::to_owned)
    };
    // A web server hands a request's `Proxy:` header to CGI programs as HTTP_PROXY, so there the
    // upper-case name is in the hands of a stranger ("httpoxy"). REQUEST_METHOD tells it is CGI.
    let http = if environment.text("REQUEST_METHOD").is_some() {
        environment.text("http_proxy").map(str::to_owned)
    } else {
        read("http_proxy", "HTTP_PROXY")
    };
    Proxies {
        http,
        https: read("https_proxy", "HTTPS_PROXY"),
        no_proxy: read("no_proxy", "NO_PROXY"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn meant(args: &StoreArgs, environment: &[(&str, &str)]) -> SessionOptions {
        options(args, &Environment::of(environment)).expect("fine")
    }

    #[test]
    fn nothing_given_leaves_everything_to_the_engine() {
        let options = meant(&StoreArgs::default(), &[]);
        assert_eq!((options.endpoint_url, options.region, options.profile), (None, None, None));
        assert!(matches!(options.credentials, Credentials::Chain) && options.verify_tls);
        assert_eq!((options.force_path_style, options.ca_bundle), (None, None));
        assert_eq!(options.retry.max_attempts, RetryOptions::default().max_attempts);
    }

    #[test]
    fn an_option_wins_over_the_environment() {
        let environment = [("AWS_CA_BUNDLE", "/env.pem")];
        let given = StoreArgs { ca_bundle: Some("/given.pem".into()), ..StoreArgs::default() };
        assert_eq!(meant(&given, &environment).ca_bundle, Some("/given.pem".into()));
        let silent = StoreArgs::default();
        assert_eq!(meant(&silent, &environment).ca_bundle, Some("/env.pem".into()));
        assert_eq!(meant(&silent, &[("AWS_CA_BUNDLE", "")]).ca_bundle, None);
    }

    #[test]
    fn state_is_where_the_specification_has_it() {
        let folder = |given: Option<&str>, environment: &[(&str, &str)]| {
            let folder = manifest_folder(given.map(Path::new), &Environment::of(environment));
            folder.map(|folder| folder.display().to_string())
        };
        let home = [("HOME", "/h"), ("XDG_STATE_HOME", "/s")];
        assert_eq!(folder(Some("here"), &home).as_deref(), Some("here"));
        assert_eq!(folder(None, &home).as_deref(), Some("/s/brigade"));
        let relative = [("HOME", "/h"), ("XDG_STATE_HOME", "s")];
        assert_eq!(folder(None, &relative).as_deref(), Some("/h/.local/state/brigade"));
        assert_eq!(folder(None, &[]), None);
    }

    #[test]
    fn retries_come_after_a_first_attempt() {
        let attempts =
            |retries| meant(&StoreArgs { retries, ..StoreArgs::default() }, &[]).retry.max_attempts;
        assert_eq!([attempts(Some(0)), attempts(Some(4)), attempts(None)], [1, 5, 10]);
    }

    #[test]
    fn times_are_the_engines_own() {
        let given = |time| {
            let args = StoreArgs { retry_for: time, stall_timeout: time, ..StoreArgs::default() };
            let options = meant(&args, &[]);
            (options.retry.outage, options.stall_timeout)
        };
        let defaults = SessionOptions::default();
        assert_eq!(given(None), (None, defaults.stall_timeout));
        let minute = Duration::from_mins(1);
        assert_eq!(given(Some(minute)), (Some(minute), minute));
    }

    #[test]
    fn proxies_are_read_as_curl_reads_them() {
        let read = |environment: &[(&str, &str)]| {
            let proxies = meant(&StoreArgs::default(), environment).proxies;
            (proxies.http, proxies.https, proxies.no_proxy)
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            read(&[("http_proxy", "l"), ("HTTP_PROXY", "u"), ("HTTPS_PROXY", "s")]),
            (text("l"), text("s"), None)
        );
        assert_eq!(read(&[("HTTP_PROXY", "u"), ("NO_PROXY", "*")]), (text("u"), None, text("*")));
        assert_eq!(read(&[("HTTP_PROXY", "u"), ("REQUEST_METHOD", "GET")]), (None, None, None));
        assert_eq!(read(&[("https_proxy", ""), ("HTTPS_PROXY", "s")]), (None, text("s"), None));
    }

    #[test]
    fn a_store_profile_is_a_name_or_a_file() {
        let read = |name: &Path| {
            let args = StoreArgs { store_profile: Some(name.into()), ..StoreArgs::default() };
            options(&args, &Environment::default()).map(|options| options.store_profile)
        };
        assert_eq!(read(Path::new("minio")).expect("built in"), StoreProfile::named("minio"));
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("store.toml");
        std::fs::write(&file, "name = \"mine\"").expect("written");
        let profile = read(&file).expect("a file").expect("a profile");
        assert_eq!(profile.name, "mine");
        let said = read(Path::new("nowhere")).expect_err("neither").to_string();
        assert!(said.contains("neither a file nor a built-in profile; those are"), "{said}");
        std::fs::write(&file, "max_part = 1").expect("written");
        assert!(read(&file).expect_err("a typo").to_string().contains("max_part"));
    }
}
