"""Certificate authorities of the lab, and what they sign."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its private key, both PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority, kept as `<stem>.crt` and `<stem>.key`; made when it is not there yet."""

    def __init__(self, stem: Path, name: str) -> None:
        self._pair = KeyPair(stem.with_suffix(".crt"), stem.with_suffix(".key"))
        self.certificate = self._pair.certificate
        if not self.certificate.exists():
            key = new_key(self._pair.key)
            subject = _name(name)
            signing = x509.KeyUsage(
                key_cert_sign=True,
                crl_sign=True,
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            )
            builder = _builder(subject, key.public_key()).issuer_name(subject)
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            builder = builder.add_extension(signing, critical=True)
            write_private(self.certificate, _pem(builder.sign(key, hashes.SHA256())))

    def issue(self, stem: Path, name: str, *, organization: str | None = None, hosts: Sequence[str] = ()) -> KeyPair:
        """A new certificate for `CN=name`, good for servers (of `hosts`: names and addresses) and clients alike."""
        pair = KeyPair(stem.with_suffix(".crt"), stem.with_suffix(".key"))
        own = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        signer = serialization.load_pem_private_key(self._pair.key.read_bytes(), password=None)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        identifier = own.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
        builder = _builder(_name(name, organization), new_key(pair.key).public_key()).issuer_name(own.subject)
        builder = builder.add_extension(usage, critical=False).add_extension(issuer, critical=False)
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_host, hosts))), critical=False)
        certificate = builder.sign(cast("ec.EllipticCurvePrivateKey", signer), hashes.SHA256())
        write_private(pair.certificate, _pem(certificate))
        return pair


def _builder(subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=365))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _name(common: str, organization: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if organization is not None:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def new_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A new key, also written to a file; in the traditional form, the only one that kube-apiserver reads."""
    key = ec.generate_private_key(ec.SECP256R1())
    clear = serialization.NoEncryption()
    write_private(
        path, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, clear)
    )
    return key


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read."""
    path.touch(mode=0o600)
    path.write_bytes(content)
