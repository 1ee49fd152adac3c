//! Whether a certificate's key is the one that is expected, or any that is enrolled.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme};

use super::super::{Enrolled, Fingerprint, Peer, Problem};

/// Whom the other side may be.
#[derive(Debug)]
pub(super) enum Allowed {
    /// This one.
    Only(Peer),
    /// Any.
    Enrolled(Enrolled),
}

/// Judges the certificate of one connection, and keeps the outcome: an error of the handshake says only that it failed.
#[derive(Debug)]
pub(super) struct Verifier {
    allowed: Allowed,
    provider: Arc<CryptoProvider>,
    outcome: Mutex<Option<Result<Peer, crate::Error>>>,
}

impl Verifier {
    pub(super) fn new(allowed: Allowed, provider: Arc<CryptoProvider>) -> Self {
        Self { allowed, provider, outcome: Mutex::new(None) }
    }

    /// Who it is, once the handshake is through; or why the certificate was refused. Nothing if none was seen.
    pub(super) fn outcome(&self) -> Option<Result<Peer, crate::Error>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn judge(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let public_key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
        let shown = Fingerprint::of(&public_key);
        let outcome = match &self.allowed {
            Allowed::Only(peer) if peer.fingerprint == shown => Ok(peer.clone()),
            Allowed::Only(peer) => {
                Err(Problem::Wrong { name: peer.name.clone(), shown, expected: peer.fingerprint }.into())
            }
            Allowed::Enrolled(enrolled) => {
                enrolled.with(&shown).and_then(|peer| peer.ok_or_else(|| Problem::Unknown { shown }.into()))
            }
        };
        let verdict = match &outcome {
            Ok(_) => Ok(()),
            // The other side gets the alert access_denied.
            Err(_) => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        };
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        verdict
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }
}

/// Never asked for: neither side offers TLS 1.2.
fn too_old() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
