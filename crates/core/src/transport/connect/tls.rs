//! Whom to trust: the TLS configuration that all clients of a session share.
//!
//! Reading a system's root certificates takes milliseconds, which a copy of one byte over plain
//! HTTP must not pay, so they are read at the first https connection and then kept. A CA bundle is
//! read at once instead: somebody named that file, and a mistake in it should be said before
//! anything else happens. One configuration also means one cache of TLS sessions, so that a lane's
//! first connection resumes what another lane began.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, ProtocolVersion, RootCertStore,
    SignatureScheme,
};

use super::ConnectOptions;
use super::failure::Failure;
use crate::error::{Error, ErrorKind, Result};

/// Certificates and TLS sessions, shared by the clients of a session. Clones are the same one.
#[derive(Clone)]
pub(crate) struct SharedTls(Arc<Shared>);

struct Shared {
    trust: Trust,
    config: OnceLock<Result<Arc<ClientConfig>, NoRoots>>,
}

enum Trust {
    System,
    Bundle(Arc<RootCertStore>),
    Anyone,
}

/// The system has no root certificates; the text says what was tried, where that is known.
type NoRoots = String;

impl SharedTls {
    /// Takes `ca_bundle` and `verify_tls` from the options, and reads the bundle.
    ///
    /// Fails with [`ErrorKind::NotFound`] where the bundle is missing, and with
    /// [`ErrorKind::InvalidInput`] where it is not PEM or holds no usable certificate.
    pub(crate) fn new(options: &ConnectOptions) -> Result<Self> {
        // A bundle that nothing will be held against is still read: naming a missing file is a
        // mistake either way.
        let bundle = options.ca_bundle.as_deref().map(read_bundle).transpose()?;
        let trust = match bundle {
            _ if !options.verify_tls => Trust::Anyone,
            Some(roots) => Trust::Bundle(Arc::new(roots)),
            None => Trust::System,
        };
        Ok(Self(Arc::new(Shared { trust, config: OnceLock::new() })))
    }

    /// The configuration, made on first use away from the runtime's own thread.
    pub(super) async fn config(&self) -> Result<Arc<ClientConfig>, Failure> {
        if let Some(made) = self.0.config.get() {
            return made.clone().map_err(Failure::NoRoots);
        }
        let shared = self.0.clone();
        let make = move || shared.config.get_or_init(|| shared.trust.config()).clone();
        let result = tokio::task::spawn_blocking(make).await;
        result.unwrap_or_else(|error| Err(error.to_string())).map_err(Failure::NoRoots)
    }
}

impl fmt::Debug for SharedTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trust = match &self.0.trust {
            Trust::System => "system".to_owned(),
            Trust::Bundle(roots) => format!("{} certificates of a bundle", roots.len()),
            Trust::Anyone => "anyone".to_owned(),
        };
        f.debug_struct("SharedTls").field("trust", &trust).finish_non_exhaustive()
    }
}

impl Trust {
    fn config(&self) -> Result<Arc<ClientConfig>, NoRoots> {
        // Named here rather than installed for the whole process, which belongs to our caller.
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        // All that are safe, the fastest first: with hardware for AES, which is nearly everywhere,
        // 128 bits cost a fifth less than 256. TLS 1.3 still comes before 1.2.
        provider.cipher_suites.sort_by_key(|suite| {
            (suite.version().version != ProtocolVersion::TLSv1_3, !is_aes_128(suite.suite()))
        });
        let provider = Arc::new(provider);
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match self {
            Self::System => builder.with_root_certificates(system_roots()?),
            Self::Bundle(roots) => builder.with_root_certificates(roots.clone()),
            Self::Anyone => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AcceptAnyone(provider))),
        };
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // The keys of a finished handshake are used by `records`; nothing logs or keeps them.
        config.enable_secret_extraction = true;
        Ok(Arc::new(config))
    }
}

fn is_aes_128(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

fn read_bundle(path: &Path) -> Result<RootCertStore> {
    const READ: &str = "read the CA bundle";
    const ADVICE: &str = "give a file of PEM certificates (-----BEGIN CERTIFICATE-----)";
    let invalid = |detail: String| {
        Error::new(ErrorKind::InvalidInput, READ, path.display().to_string(), detail).advise(ADVICE)
    };
    let from_pem = |error| match error {
        pem::Error::Io(error) => Error::io(READ, path, error),
        error => invalid(format!("not PEM: {error}")),
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(from_pem)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(from_pem)?;
    if certificates.is_empty() {
        return Err(invalid("holds no certificate".to_owned()));
    }
    let mut roots = RootCertStore::empty();
    // Old roots that nobody can parse any more sit in many bundles, beside those that count.
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err(invalid("holds no certificate that can be read".to_owned()));
    }
    Ok(roots)
}

/// Where the system keeps them, or where `SSL_CERT_FILE` and `SSL_CERT_DIR` say, as for OpenSSL.
fn system_roots() -> Result<RootCertStore, NoRoots> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(found.errors.first().map(ToString::to_string).unwrap_or_default());
    }
    Ok(roots)
}

/// Believes whoever answers. Signatures are still checked: a peer must own the key it shows.
#[derive(Debug)]
struct AcceptAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_bundle(path: &Path) -> Result<SharedTls> {
        SharedTls::new(&ConnectOptions { ca_bundle: Some(path.to_owned()), ..Default::default() })
    }

    #[test]
    fn a_bundle_that_is_missing_empty_or_broken_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");

        let missing = with_bundle(&path).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert!(missing.to_string().contains("ca.pem"), "{missing}");

        let broken = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        let unreadable = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for content in ["", "hello\n", broken, unreadable] {
            std::fs::write(&path, content).unwrap();
            let error = with_bundle(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{content:?}");
            assert!(error.to_string().contains("ca.pem"), "{error}");
            assert!(error.to_string().contains("give a file of PEM"), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn nothing_is_read_before_it_is_needed() {
        let shared = SharedTls::new(&ConnectOptions::default()).unwrap();
        assert!(shared.0.config.get().is_none());
    }

    #[tokio::test]
    async fn clones_share_one_configuration() {
        let options = ConnectOptions { verify_tls: false, ..Default::default() };
        let shared = SharedTls::new(&options).unwrap();
        let one = shared.config().await.unwrap();
        let other = shared.clone().config().await.unwrap();
        assert!(Arc::ptr_eq(&one, &other));
    }
}
