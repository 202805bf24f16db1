//! An authority that a test makes, its certificates as files, and the ways in which TLS fails.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use tempfile::TempDir;
use traced_broker::{Error, ErrorKind};

/// The host that every server of a test is reached at.
pub(crate) const HOST: &str = "127.0.0.1";
/// A name that no server of a test is reached at.
pub(crate) const OTHER_NAME: &str = "elsewhere.test";

/// Certificates in PEM files, in a folder that ends with the value.
pub(crate) struct Certificates {
    directory: TempDir,
}

/// The names of a certificate's two files, without their endings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// Of a server at [`HOST`].
    Server,
    /// Of a server at [`OTHER_NAME`].
    Elsewhere,
    /// Of a server at [`HOST`], until 2020.
    Expired,
    /// Of a client whom the servers trust.
    Client,
    /// Of a client of another authority.
    Stranger,
}

impl Certificates {
    /// Makes an authority `ca.pem`, another one `other-ca.pem`, and the certificates of both.
    pub(crate) fn make() -> Self {
        let made = Self { directory: tempfile::tempdir().unwrap() };
        let (authority, other) = (made.authority("ca"), made.authority("other-ca"));
        for (of, name, issuer) in [
            (Of::Server, HOST, &authority),
            (Of::Elsewhere, OTHER_NAME, &authority),
            (Of::Expired, HOST, &authority),
            (Of::Client, "app", &authority),
            (Of::Stranger, "app", &other),
        ] {
            made.issue(of, name, issuer);
        }
        made
    }

    fn authority(&self, name: &str) -> Issuer<'static, KeyPair> {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(self.file(name, "pem"), certificate.pem()).unwrap();
        Issuer::new(params, key)
    }

    fn issue(&self, of: Of, name: &str, issuer: &Issuer<'static, KeyPair>) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if of == Of::Expired {
            (params.not_before, params.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        std::fs::write(self.certificate(of), certificate.pem()).unwrap();
        std::fs::write(self.key(of), key.serialize_pem()).unwrap();
    }

    fn file(&self, name: &str, ending: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.{ending}"))
    }

    /// Returns the file of the authority that servers and clients trust.
    pub(crate) fn authorities(&self) -> PathBuf {
        self.file("ca", "pem")
    }

    /// Returns the file of another authority.
    pub(crate) fn other_authorities(&self) -> PathBuf {
        self.file("other-ca", "pem")
    }

    pub(crate) fn certificate(&self, of: Of) -> PathBuf {
        self.file(&format!("{of:?}"), "pem")
    }

    pub(crate) fn key(&self, of: Of) -> PathBuf {
        self.file(&format!("{of:?}"), "key")
    }

    /// Returns the options of a client with this certificate: `tls_ca=…&tls_cert=…&tls_key=…`.
    pub(crate) fn options(&self, of: Of) -> String {
        let (certificate, key) = (self.certificate(of), self.key(of));
        format!("{}&tls_cert={}&tls_key={}", self.anonymous(), certificate.display(), key.display())
    }

    /// Returns the options of a client without a certificate.
    pub(crate) fn anonymous(&self) -> String {
        format!("tls_ca={}", self.authorities().display())
    }

    /// Returns the options of a client that trusts the other authority.
    pub(crate) fn distrusting(&self) -> String {
        self.options(Of::Client).replacen("ca.pem", "other-ca.pem", 1)
    }
}

impl Certificates {
    /// Writes other certificates into the files that clients read.
    pub(crate) fn replace_those_of_clients(&self, by: &Self) {
        let files = |all: &Self| [all.authorities(), all.certificate(Of::Client), all.key(Of::Client)];
        for (old, new) in files(self).into_iter().zip(files(by)) {
            std::fs::copy(new, old).unwrap();
        }
    }

    /// Returns what one side does not accept of the other: the certificate of a server that wants
    /// one of its clients, the options of the client, and a word of the error.
    pub(crate) fn mistrust(&self) -> [(Of, String, &'static str); 5] {
        [
            (Of::Server, self.distrusting(), "tls_ca"),
            (Of::Elsewhere, self.options(Of::Client), "another host"),
            (Of::Expired, self.options(Of::Client), "expired"),
            (Of::Server, self.anonymous(), "client certificate"),
            (Of::Server, self.options(Of::Stranger), "client certificate"),
        ]
    }
}

/// Checks the error of a connection that TLS refuses: its kind, and a word of what to do.
pub(crate) fn check_refusal(error: &Error, kind: ErrorKind, word: &str) {
    assert_eq!(error.kind(), kind, "{error}: {error:?}");
    assert!(error.to_string().contains(word), "`{word}` is not said: {error}");
}
