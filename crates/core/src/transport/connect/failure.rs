//! What a failed exchange was: for the SDK a [`ConnectorError`], for a person one sentence.
//!
//! The layers below wrap each other's errors, and the outermost says the least ("client error
//! (Connect)"). The whole chain is walked instead, and its innermost link with a known meaning
//! speaks for it.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use aws_smithy_runtime_api::client::result::ConnectorError;
use hyper_util::client::legacy;
use hyper_util::client::proxy::matcher::Intercept;
use rustls::CertificateError;

pub(super) type BoxError = Box<dyn StdError + Send + Sync>;

/// Failures that only this room knows about.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("timed out connecting")]
    ConnectTimeout,
    #[error("no answer within {} ms", .0.as_millis())]
    NoAnswer(Duration),
    #[error("name not found: {host} ({reason})")]
    Name { host: String, reason: String },
    #[error(
        "this system has no root certificates{}; install the ca-certificates package or give a CA \
         bundle", in_parentheses(.0)
    )]
    NoRoots(String),
    #[error("proxy {proxy}")]
    Proxy { proxy: String, source: BoxError },
    #[error("it asks for credentials; give the right user and password in its URL")]
    ProxyCredentials,
}

impl Failure {
    /// A failed lookup. The resolver's words, "failed to lookup address information: …", come in
    /// two halves of which the second tells something.
    pub(super) fn name(host: String, error: &io::Error) -> Self {
        let text = error.to_string();
        let reason = text.rsplit(": ").next().unwrap_or(&text).to_lowercase();
        Self::Name { host, reason }
    }

    /// A failure on the way to `proxy`, or by it.
    pub(super) fn through(proxy: &Intercept, source: impl Into<BoxError>) -> Self {
        let proxy = proxy.uri().authority().map(ToString::to_string).unwrap_or_default();
        Self::Proxy { proxy, source: source.into() }
    }

    /// A tunnel that was not opened. Wrong credentials stay wrong, so they are told apart.
    pub(super) fn tunnel(error: impl Into<BoxError>) -> BoxError {
        let error = error.into();
        match tunnel_reason(&*error).as_deref() {
            Some("proxy authorization required") => Self::ProxyCredentials.into(),
            _ => error,
        }
    }
}

/// Sorts a failure into the SDK's kinds. Those it would repeat are time-outs and `io`; a bad
/// certificate, a request that cannot be sent and an answer that is not HTTP stay as they are.
pub(super) fn connector_error(error: BoxError) -> ConnectorError {
    let mut never_connected = false;
    let mut kind: fn(BoxError) -> ConnectorError = |error| ConnectorError::other(error, None);
    for link in chain(&*error) {
        if let Some(failure) = link.downcast_ref::<Failure>() {
            kind = match failure {
                Failure::ConnectTimeout | Failure::NoAnswer(_) => ConnectorError::timeout,
                Failure::Name { .. } | Failure::Proxy { .. } => ConnectorError::io,
                Failure::NoRoots(_) | Failure::ProxyCredentials => {
                    |error| ConnectorError::other(error, None)
                }
            };
        } else if let Some(client) = link.downcast_ref::<legacy::Error>() {
            never_connected = client.is_connect();
        } else if let Some(hyper) = link.downcast_ref::<hyper::Error>() {
            if hyper.is_user() {
                // The request's own body failed; what follows is its business, not the network's.
                kind = ConnectorError::user;
                break;
            }
            if !hyper.is_parse() {
                kind = ConnectorError::io;
            }
        } else if let Some(io) = link.downcast_ref::<io::Error>() {
            kind = match io.kind() {
                io::ErrorKind::TimedOut => ConnectorError::timeout,
                _ => ConnectorError::io,
            };
        } else if is_untrusted(link) {
            kind = |error| ConnectorError::other(error, None);
        }
    }
    let error = kind(error);
    if never_connected { error.never_connected() } else { error }
}

/// The one short sentence that says why a request failed, from anywhere in its chain of errors.
pub(crate) fn describe(error: &(dyn StdError + 'static)) -> String {
    let mut proxy = String::new();
    let mut connecting = false;
    let mut sentence = None;
    let mut last = error;
    for link in chain(error) {
        last = link;
        if let Some(Failure::Proxy { proxy: name, .. }) = link.downcast_ref() {
            proxy = format!("proxy {name}: ");
        }
        connecting |= link.downcast_ref().is_some_and(legacy::Error::is_connect);
        sentence = sentence_for(link, connecting).or(sentence);
    }
    let sentence = sentence.unwrap_or_else(|| last.to_string());
    proxy + sentence.lines().next().unwrap_or_default()
}

/// Whether the server could not prove who it is, or nobody is known who could vouch for it. Trying
/// again cannot help; other certificates can.
pub(crate) fn is_certificate_problem(error: &(dyn StdError + 'static)) -> bool {
    chain(error).any(is_untrusted)
}

/// Whether a proxy wants a user and a password, or other ones. Asking again cannot help.
pub(crate) fn is_proxy_credentials_problem(error: &(dyn StdError + 'static)) -> bool {
    chain(error).any(|link| matches!(link.downcast_ref(), Some(Failure::ProxyCredentials)))
}

fn is_untrusted(link: &(dyn StdError + 'static)) -> bool {
    use rustls::Error::{InvalidCertificate, NoCertificatesPresented};
    matches!(link.downcast_ref(), Some(InvalidCertificate(_) | NoCertificatesPresented))
        || matches!(link.downcast_ref(), Some(Failure::NoRoots(_)))
}

/// The error and its causes. An `io::Error` names its payload's source as its own and so hides the
/// payload, which is what matters here.
fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&link| match link.downcast_ref::<io::Error>() {
        Some(io) => io.get_ref().map(|payload| payload as _),
        None => link.source(),
    })
}

fn sentence_for(link: &(dyn StdError + 'static), connecting: bool) -> Option<String> {
    if let Some(failure) = link.downcast_ref::<Failure>() {
        return match failure {
            Failure::Proxy { .. } => None,
            failure => Some(failure.to_string()),
        };
    }
    if let Some(io) = link.downcast_ref::<io::Error>() {
        return io_sentence(io.kind(), connecting).map(str::to_owned);
    }
    if let Some(hyper) = link.downcast_ref::<hyper::Error>() {
        return hyper_sentence(hyper).map(str::to_owned);
    }
    if let Some(tls) = link.downcast_ref::<rustls::Error>() {
        return Some(tls_sentence(tls));
    }
    tunnel_reason(link).map(|reason| match reason.as_str() {
        "unsuccessful" => "it refused the tunnel".to_owned(),
        "unexpected end of file" => "it closed the connection before answering".to_owned(),
        _ => reason,
    })
}

/// Why a tunnel was not opened. The error's type is private to its crate; its words are not.
fn tunnel_reason(error: &(dyn StdError + 'static)) -> Option<String> {
    error.to_string().strip_prefix("tunnel error: ").map(str::to_owned)
}

fn io_sentence(kind: io::ErrorKind, connecting: bool) -> Option<&'static str> {
    Some(match kind {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::ConnectionReset => "connection reset",
        io::ErrorKind::ConnectionAborted => "connection aborted",
        io::ErrorKind::BrokenPipe => {
            "the server closed the connection while a request was being sent"
        }
        io::ErrorKind::TimedOut if connecting => "timed out connecting",
        io::ErrorKind::TimedOut => "connection timed out",
        io::ErrorKind::HostUnreachable => "host unreachable",
        io::ErrorKind::NetworkUnreachable => "network unreachable",
        io::ErrorKind::UnexpectedEof => "the server closed the connection too early",
        _ => return None,
    })
}

fn hyper_sentence(error: &hyper::Error) -> Option<&'static str> {
    if error.is_incomplete_message() {
        Some("the server closed the connection before answering")
    } else if error.is_parse() {
        Some("the server's answer is not HTTP")
    } else if error.is_closed() || error.is_canceled() {
        Some("the connection was closed before the request was sent")
    } else {
        None
    }
}

fn tls_sentence(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => certificate_sentence(error),
        rustls::Error::InvalidMessage(_) => "the server does not speak TLS on this port".to_owned(),
        rustls::Error::AlertReceived(alert) => {
            format!("the server refused the TLS handshake ({alert:?})")
        }
        other => format!("TLS failed: {other}"),
    }
}

fn certificate_sentence(error: &CertificateError) -> String {
    let reason = match error {
        CertificateError::UnknownIssuer => "is not trusted (unknown issuer)".to_owned(),
        // What the authority of an earlier run of the same server leads to.
        CertificateError::BadSignature => {
            "is not trusted (another authority of the same name signed it)".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet (or this machine's clock is wrong)".to_owned()
        }
        CertificateError::NotValidForName => "is for another name".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> = presented.iter().map(|name| bare(name)).collect();
            format!("is not for {} but for {}", expected.to_str(), names.join(", "))
        }
        CertificateError::Revoked => "was revoked".to_owned(),
        // What a self-signed certificate often is, and what other TLS libraries let pass.
        CertificateError::Other(other) if other.to_string() == "CaUsedAsEndEntity" => {
            "is that of a certificate authority itself, which must not be a server's".to_owned()
        }
        other => format!("is not acceptable ({other})"),
    };
    format!("the server's certificate {reason}")
}

/// `DnsName("localhost")` is how a presented name comes: only what is quoted is the name.
fn bare(presented: &str) -> &str {
    presented.split('"').nth(1).unwrap_or(presented)
}

fn in_parentheses(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(error: CertificateError) -> BoxError {
        // As the layers below do: an `io::Error` in an `io::Error`.
        let inner =
            io::Error::new(io::ErrorKind::InvalidData, rustls::Error::InvalidCertificate(error));
        Box::new(io::Error::other(inner))
    }

    #[test]
    fn the_innermost_known_cause_speaks() {
        let refused = || Box::new(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(describe(&*refused()), "connection refused");
        let through = Failure::Proxy { proxy: "p:3128".into(), source: refused() };
        assert_eq!(describe(&through), "proxy p:3128: connection refused");
        let wrapped = ConnectorError::io(through.into());
        assert_eq!(describe(&wrapped), "proxy p:3128: connection refused");
        let other = io::Error::other("no route\nto anywhere");
        assert_eq!(describe(&other), "no route");
    }

    #[test]
    fn a_bad_certificate_says_what_is_bad_about_it() {
        let name = "store.example".try_into().unwrap();
        let presented = vec!["DnsName(\"a.example\")".to_owned()];
        for (error, expected) in [
            (CertificateError::UnknownIssuer, "is not trusted (unknown issuer)"),
            (CertificateError::Expired, "has expired"),
            (
                CertificateError::NotValidForNameContext { expected: name, presented },
                "is not for store.example but for a.example",
            ),
        ] {
            let error = tls(error);
            assert!(is_certificate_problem(&*error));
            assert_eq!(describe(&*error), format!("the server's certificate {expected}"));
            assert!(connector_error(error).is_other());
        }
    }

    #[test]
    fn missing_roots_come_with_what_to_do() {
        let error = Failure::NoRoots(String::new());
        assert!(is_certificate_problem(&error));
        assert_eq!(
            describe(&error),
            "this system has no root certificates; install the ca-certificates package or give a \
             CA bundle"
        );
        assert!(!is_certificate_problem(&Failure::ConnectTimeout));
    }
}
