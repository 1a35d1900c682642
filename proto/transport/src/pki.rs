//! The cluster's own certificate authority: ECDSA P-256, one level, no foreign CA.

use crate::{
    CONTROLLER_SERVER_NAME, Identity, Role, TransportError, error::material, identity::certificates, node_server_name,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use sha2::{Digest as _, Sha256};
use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

/// How long a CA certificate is valid.
pub const CA_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long every other certificate is valid.
pub const CERTIFICATE_VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);
/// How far certificates are dated back, for clocks that run behind.
pub const BACKDATE: Duration = Duration::from_secs(3600);
/// Bytes of a certificate request that is looked at.
pub const CSR_BYTES_MAX: usize = 16 << 10;
/// Characters of a name in a certificate, so that `<name>.node.strata` is a DNS name.
pub const NAME_CHARS_MAX: usize = 200;

const CA_CERT_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca-key.pem";

/// A private key.
pub struct KeyPair(rcgen::KeyPair);

impl KeyPair {
    /// Makes a new ECDSA P-256 key.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn generate() -> Result<Self, TransportError> {
        rcgen::KeyPair::generate().map(Self).map_err(|e| material("a new key", e))
    }

    /// Reads a PKCS #8 key.
    ///
    /// # Errors
    /// If the text is no such key.
    pub fn from_pem(pem: &str) -> Result<Self, TransportError> {
        rcgen::KeyPair::from_pem(pem).map(Self).map_err(|e| material("the private key", e))
    }

    /// The key as PKCS #8 PEM. Keep it secret.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// A certificate request for this key (RFC 2986). The CA takes only the key from it; the name is for people.
    ///
    /// # Errors
    /// If signing fails.
    pub fn csr_pem(&self, name: &str) -> Result<String, TransportError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let request = params.serialize_request(&self.0).and_then(|csr| csr.pem());
        request.map_err(|e| material("the certificate request", e))
    }
}

/// The certificate authority: its certificate and its key.
pub struct Ca {
    cert_pem: String,
    key: KeyPair,
}

impl Ca {
    /// Makes a new CA.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn create() -> Result<Self, TransportError> {
        const WHAT: &str = "the new CA";
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "strata");
        // A number in the name keeps two clusters' CAs apart for tools that look them up by subject.
        params.distinguished_name.push(DnType::CommonName, format!("strata CA {}", hex::encode(random::<4>()?)));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        date(&mut params, SystemTime::now(), CA_VALIDITY);
        params.serial_number = Some(serial()?);
        let cert_pem = params.self_signed(&key.0).map_err(|e| material(WHAT, e))?.pem();
        Ok(Self { cert_pem, key })
    }

    /// Reads the CA that [`Ca::save`] wrote.
    ///
    /// # Errors
    /// If a file is missing or malformed.
    pub fn load(dir: &Path) -> Result<Self, TransportError> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(|source| TransportError::File {
                action: "read",
                path,
                source: source.into(),
            })
        };
        let cert_pem = read(CA_CERT_FILE)?;
        certificates("the CA certificate", &cert_pem)?;
        Ok(Self { cert_pem, key: KeyPair::from_pem(&read(CA_KEY_FILE)?)? })
    }

    /// Writes `ca.pem` and `ca-key.pem` (mode 0600), each whole or not at all, the certificate last: a directory that has it is complete.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), TransportError> {
        write_private(&dir.join(CA_KEY_FILE), &self.key.pem())?;
        write_private(&dir.join(CA_CERT_FILE), &self.cert_pem)
    }

    /// Whether a CA was saved in the directory.
    #[must_use]
    pub fn exists(dir: &Path) -> bool {
        dir.join(CA_CERT_FILE).exists()
    }

    /// The CA's certificate, PEM.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// SHA-256 of the certificate's DER, lower-case hex: what join tokens pin.
    ///
    /// # Errors
    /// If the certificate is malformed.
    pub fn fingerprint(&self) -> Result<String, TransportError> {
        Ok(certificates("the CA certificate", &self.cert_pem)?.first().map(|c| fingerprint_of(c)).unwrap_or_default())
    }

    /// Makes a key and a certificate for it.
    ///
    /// # Errors
    /// If the name cannot stand in a certificate.
    pub fn issue(&self, role: Role, name: &str) -> Result<Identity, TransportError> {
        self.issue_dated(role, name, SystemTime::now(), CERTIFICATE_VALIDITY)
    }

    /// As [`Ca::issue`], with the beginning of the validity (before backdating) and its length given.
    ///
    /// # Errors
    /// If the name cannot stand in a certificate.
    pub fn issue_dated(
        &self,
        role: Role,
        name: &str,
        from: SystemTime,
        validity: Duration,
    ) -> Result<Identity, TransportError> {
        let key = KeyPair::generate()?;
        let cert_pem = self.certify(role, name, &key.0, from, validity)?;
        Ok(Identity { cert_pem, key_pem: key.pem(), ca_pem: self.cert_pem.clone() })
    }

    /// Makes a certificate for the key of a request. Of the request only the key counts: name, role and extensions are the CA's decision.
    ///
    /// # Errors
    /// If the request is malformed, too long, not signed by its own key, or the name cannot stand in a certificate.
    pub fn sign_csr(&self, role: Role, name: &str, csr_pem: &str) -> Result<String, TransportError> {
        const WHAT: &str = "the certificate request";
        if csr_pem.len() > CSR_BYTES_MAX {
            return Err(material(WHAT, format!("it has more than {CSR_BYTES_MAX} bytes")));
        }
        let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(|e| material(WHAT, e))?;
        self.certify(role, name, &request.public_key, SystemTime::now(), CERTIFICATE_VALIDITY)
    }

    fn certify(
        &self,
        role: Role,
        name: &str,
        key: &impl PublicKeyData,
        from: SystemTime,
        validity: Duration,
    ) -> Result<String, TransportError> {
        const WHAT: &str = "the name for a certificate";
        strata_model::check_name("name", name).map_err(|e| material(WHAT, e))?;
        if name.len() > NAME_CHARS_MAX {
            return Err(material(WHAT, format!("it has more than {NAME_CHARS_MAX} characters")));
        }
        let names = match role {
            Role::Admin => vec![],
            Role::Node => vec![node_server_name(name)],
            Role::Controller => vec![CONTROLLER_SERVER_NAME.to_owned()],
        };
        let mut params = CertificateParams::new(names).map_err(|e| material(WHAT, e))?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, role.organization());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if role != Role::Admin {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        date(&mut params, from, validity);
        let issuer = Issuer::from_ca_cert_pem(&self.cert_pem, &self.key.0).map_err(|e| material("the CA", e))?;
        Ok(params.signed_by(key, &issuer).map_err(|e| material("the new certificate", e))?.pem())
    }
}

/// SHA-256 of a certificate's DER, lower-case hex.
#[must_use]
pub fn fingerprint_of(der: &[u8]) -> String {
    hex::encode(Sha256::digest(der))
}

/// Writes a file that only its owner may read: under a temporary name, synced, then renamed.
///
/// # Errors
/// If the system refuses.
pub fn write_private(path: &Path, text: &str) -> Result<(), TransportError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The rename is on disk only once its directory is.
        path.parent().filter(|dir| !dir.as_os_str().is_empty()).map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
    };
    write().map_err(|source| TransportError::File { action: "write", path: path.to_owned(), source: source.into() })
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], TransportError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| material("the system's randomness", "it gives none"))?;
    Ok(bytes)
}

/// 127 random bits: positive, unique, at most 20 octets (RFC 5280, 4.1.2.2).
fn serial() -> Result<SerialNumber, TransportError> {
    let mut bytes = random::<16>()?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn date(params: &mut CertificateParams, from: SystemTime, validity: Duration) {
    let since_epoch = from.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch.saturating_sub(BACKDATE);
    params.not_after = epoch + since_epoch + validity;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::PeerIdentity;
    use std::os::unix::fs::PermissionsExt as _;

    fn peer_of(cert_pem: &str) -> PeerIdentity {
        PeerIdentity::of_certificate(&certificates("it", cert_pem).unwrap()[0]).unwrap()
    }

    #[test]
    fn a_saved_ca_is_the_same_ca_and_its_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!Ca::exists(dir.path()));
        let ca = Ca::create().unwrap();
        ca.save(dir.path()).unwrap();
        assert!(Ca::exists(dir.path()));
        let mode = fs::metadata(dir.path().join(CA_KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let loaded = Ca::load(dir.path()).unwrap();
        assert_eq!(loaded.fingerprint().unwrap(), ca.fingerprint().unwrap());
        assert_eq!(ca.fingerprint().unwrap().len(), 64);
        let message = Ca::load(&dir.path().join("none")).err().unwrap().to_string();
        assert!(message.contains("ca.pem"), "{message}");
    }

    #[test]
    fn a_request_cannot_choose_its_role_or_name() {
        let ca = Ca::create().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![CONTROLLER_SERVER_NAME.to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "strata:admin");
        params.distinguished_name.push(DnType::CommonName, "root");
        let csr = params.serialize_request(&key.0).unwrap().pem().unwrap();
        let cert_pem = ca.sign_csr(Role::Node, "node-1", &csr).unwrap();
        assert_eq!(peer_of(&cert_pem), PeerIdentity { role: Role::Node, name: "node-1".into() });
        let der = certificates("it", &cert_pem).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&der[0]).unwrap();
        let names = parsed.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 1);
        assert!(format!("{:?}", names.value.general_names).contains("node-1.node.strata"));
        assert!(!parsed.is_ca());
        let days =
            (parsed.validity().not_after.timestamp() - parsed.validity().not_before.timestamp()) as u64 / (24 * 3600);
        assert_eq!(days, 30);
    }

    #[test]
    fn names_and_requests_that_are_no_good_are_refused() {
        let ca = Ca::create().unwrap();
        for name in ["", "Node", "a b", "x\0", "*", &"a.".repeat(120), &["a"; 110].join(".")] {
            assert!(ca.issue(Role::Node, name).is_err(), "{name:?}");
        }
        let csr = KeyPair::generate().unwrap().csr_pem("n").unwrap();
        assert!(ca.sign_csr(Role::Node, "n", &csr).is_ok());
        let broken = csr.replacen('A', "B", 1);
        for csr in ["", "x", &broken, &"x".repeat(CSR_BYTES_MAX + 1)] {
            assert!(ca.sign_csr(Role::Node, "n", csr).is_err());
        }
    }
}
