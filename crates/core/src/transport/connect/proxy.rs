//! Which destinations go through which proxy.
//!
//! The values mean what `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` mean to curl, but they come in
//! as options: only the caller reads the environment. A proxy's URL may hold a password, so nothing
//! here prints one.

use std::fmt;

use http::Uri;
use http::uri::Scheme;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use crate::error::{Error, ErrorKind, Result};

/// The proxies to go through, as `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` hold them. An empty
/// value is the same as none.
///
/// A proxy is written `[http://|https://][user:password@]host[:port]`; special characters in the
/// user and the password are percent-encoded. Printing this with `{:?}` hides user and password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The proxy for `http://` endpoints. Requests are sent to it in absolute form.
    pub http: Option<String>,
    /// The proxy for `https://` endpoints. It is asked for a tunnel, and sees no more than the
    /// endpoint's name.
    pub https: Option<String>,
    /// The hosts to reach directly, separated by commas: names (their subdomains included),
    /// addresses, networks such as `10.0.0.0/8`, or `*` for every host. Nothing is exempt by itself,
    /// not even localhost.
    pub no_proxy: Option<String>,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &self.http.as_deref().map(without_credentials))
            .field("https", &self.https.as_deref().map(without_credentials))
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

/// [`Proxies`] that were checked. Without any, a request costs one comparison.
pub(super) struct Rules(Option<Matcher>);

impl Rules {
    pub(super) fn new(proxies: &Proxies) -> Result<Self> {
        let http = check("for http:// endpoints", proxies.http.as_deref())?;
        let https = check("for https:// endpoints", proxies.https.as_deref())?;
        let exempt = proxies.no_proxy.as_deref().unwrap_or_default();
        // The matcher holds its `*` against names only, while curl's means addresses as well.
        let everything = exempt.split(',').any(|entry| entry.trim() == "*");
        if everything || (http.is_empty() && https.is_empty()) {
            return Ok(Self(None));
        }
        Ok(Self(Some(Matcher::builder().http(http).https(https).no(exempt).build())))
    }

    /// The proxy to go through to `destination`, if any.
    pub(super) fn proxy_for(&self, destination: &Uri) -> Option<Intercept> {
        self.0.as_ref()?.intercept(destination)
    }

    /// The proxy that gets the very request to `destination`, and with it must get credentials. A
    /// tunnel shows its own when it is opened, and nothing inside it may repeat them: that would
    /// show them to the store.
    pub(super) fn asked_in_absolute_form(&self, destination: &Uri) -> Option<Intercept> {
        if self.0.is_none() || destination.scheme() != Some(&Scheme::HTTP) {
            return None;
        }
        self.proxy_for(destination)
    }
}

/// The value, if a proxy can be made of it; empty where there is none.
fn check<'a>(which: &'static str, value: Option<&'a str>) -> Result<&'a str> {
    let value = value.unwrap_or_default().trim();
    if value.is_empty() {
        return Ok(value);
    }
    let invalid = |detail: &str| {
        let target = format!("{} {which}", without_credentials(value));
        Err(Error::new(ErrorKind::InvalidInput, "use the proxy", target, detail).advise(
            "write it as http://host:port or http://user:password@host:port, with special \
             characters in the password percent-encoded",
        ))
    };
    let Ok(uri) = value.parse::<Uri>() else {
        return invalid("not a URL");
    };
    match uri.scheme_str() {
        None | Some("http" | "https") => {}
        Some(_) => return invalid("only http:// and https:// proxies are supported"),
    }
    // The matcher drops what it cannot use without a word, so it is asked.
    let matcher = Matcher::builder().http(value).build();
    let proxy = matcher.intercept(&Uri::from_static("http://store/"));
    if proxy.is_some_and(|proxy| is_host_and_port(proxy.uri())) {
        Ok(value)
    } else {
        invalid("not a URL")
    }
}

/// A URL's parser lets anything pass for a port, and then knows of none.
fn is_host_and_port(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    !host.is_empty()
        && match uri.port_u16() {
            Some(port) => authority == format!("{host}:{port}"),
            None => authority == host,
        }
}

/// What follows the last `@`: also right for a URL too malformed to be taken apart.
fn without_credentials(value: &str) -> &str {
    value.rsplit('@').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(http: &str, https: &str, no_proxy: &str) -> Result<Rules> {
        let some = |value: &str| Some(value.to_owned());
        Rules::new(&Proxies { http: some(http), https: some(https), no_proxy: some(no_proxy) })
    }

    fn through(rules: &Rules, destination: &str) -> Option<String> {
        let destination: Uri = destination.parse().unwrap();
        rules.proxy_for(&destination).map(|proxy| proxy.uri().to_string())
    }

    #[test]
    fn each_scheme_has_its_proxy_and_some_hosts_none() {
        let rules = rules("a:1", "https://b:2", "near.example, 10.0.0.0/8,::1").unwrap();
        assert_eq!(through(&rules, "http://far.example/x").unwrap(), "http://a:1/");
        assert_eq!(through(&rules, "https://far.example/x").unwrap(), "https://b:2/");
        assert_eq!(through(&rules, "http://localhost:9000/").unwrap(), "http://a:1/");
        assert_eq!(through(&rules, "http://127.0.0.1:9000/").unwrap(), "http://a:1/");
        for direct in ["https://s3.near.example", "http://near.example", "http://10.1.2.3:9000"] {
            assert_eq!(through(&rules, direct), None, "{direct}");
        }
        assert_eq!(through(&rules, "http://[::1]:9000/"), None);
    }

    #[test]
    fn a_star_exempts_names_and_addresses() {
        let rules = rules("a:1", "", "x, *").unwrap();
        assert_eq!(through(&rules, "http://far.example/"), None);
        assert_eq!(through(&rules, "http://10.0.0.1/"), None);
    }

    #[test]
    fn credentials_go_with_plain_requests_and_never_into_a_tunnel() {
        let rules = rules("http://u:p%40ss@a:1", "http://u:p%40ss@a:1", "").unwrap();
        let proxy = rules.asked_in_absolute_form(&Uri::from_static("http://s3/")).unwrap();
        let credentials = proxy.basic_auth().unwrap();
        assert_eq!(credentials, "Basic dTpwQHNz");
        assert!(credentials.is_sensitive());
        assert!(rules.asked_in_absolute_form(&Uri::from_static("https://s3/")).is_none());
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_an_error_without_its_password() {
        for url in [
            "socks5://u:hunter2@p:1080",
            "http://u:hunter2@",
            "http://u:hunter2@p:99999",
            "http://u:hunter2/#@p:1",
            "u:hunter2@p q",
            "http://",
        ] {
            let error = rules("", url, "").map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
            assert!(error.to_string().contains("for https:// endpoints"), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        assert!(rules("", " ", "").unwrap().0.is_none());
    }

    #[test]
    fn debug_output_hides_user_and_password() {
        let proxies = Proxies { http: Some("http://u:hunter2@p:1".into()), ..Default::default() };
        let text = format!("{proxies:?}");
        assert!(text.contains("p:1") && !text.contains("hunter2"), "{text}");
    }
}
