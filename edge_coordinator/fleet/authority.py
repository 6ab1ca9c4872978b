"""Certificates: an authority of one's own, what it issues, and what it takes back."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runtime.errors import SettingsError

_AUTHORITY_DAYS = 3650
_EARLIER = timedelta(days=365)
"""Certificates hold since then: a board without a clock may wake up in the past."""


@dataclass(frozen=True)
class Identity:
    """A certificate and its private key, as PEM."""

    certificate: bytes
    key: bytes
    serial: int
    expires: datetime


class Authority:
    """Signs what a site's programs show each other."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def make(cls, name: str, *, now: datetime) -> Self:
        """Make a new authority, which signs itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_named(name), _named(name), key, days=_AUTHORITY_DAYS, now=now)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        builder = builder.add_extension(_key_identifier(key), critical=False)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, certificate: bytes, key: bytes) -> Self:
        """Read an authority back; SettingsError if this is none."""
        try:
            loaded = serialization.load_pem_private_key(key, password=None)
            authority = x509.load_pem_x509_certificate(certificate)
        except (ValueError, TypeError) as error:
            raise SettingsError(
                f"the authority's key or certificate is damaged: {error}"
            ) from error
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise SettingsError("the authority's key is not one that cpsl fleet made")
        return cls(authority, loaded)

    @property
    def identity(self) -> Identity:
        """The authority's own certificate and key."""
        return _identity(self._certificate, self._key)

    def issue_server(self, hosts: Sequence[str], *, days: int, now: datetime) -> Identity:
        """Issue what a broker shows to its clients, who know it by one of these names."""
        names = x509.SubjectAlternativeName([_host_name(host) for host in hosts])
        return self._issue(hosts[0][:64], ExtendedKeyUsageOID.SERVER_AUTH, names, days, now)

    def issue_client(self, name: str, *, days: int, now: datetime) -> Identity:
        """Issue what a client shows to the broker, which takes `name` for its user name."""
        return self._issue(name, ExtendedKeyUsageOID.CLIENT_AUTH, None, days, now)

    def revocation_list(self, serials: Iterable[int], *, newer_than: bytes | None) -> bytes:
        """List what no longer holds, as PEM, dated after the list before.

        OpenSSL takes the newest of several lists by their dates in whole seconds, and refuses one
        of the future: so lists begin far in the past, and each is at least a second later.
        """
        now = datetime.now(UTC).replace(microsecond=0)
        dated = now - timedelta(days=1)
        if newer_than is not None:
            before = x509.load_pem_x509_crl(newer_than).last_update_utc
            dated = max(dated, before + timedelta(seconds=1))
        builder = x509.CertificateRevocationListBuilder(self._certificate.subject)
        builder = builder.last_update(dated).next_update(self._certificate.not_valid_after_utc)
        for serial in sorted(serials):
            revoked = x509.RevokedCertificateBuilder(serial, dated)
            builder = builder.add_revoked_certificate(revoked.build())
        pem: bytes = builder.sign(self._key, hashes.SHA256()).public_bytes(
            serialization.Encoding.PEM
        )
        return pem

    def _issue(
        self,
        name: str,
        purpose: x509.ObjectIdentifier,
        hosts: x509.SubjectAlternativeName | None,
        days: int,
        now: datetime,
    ) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_named(name), self._certificate.subject, key, days=days, now=now)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        )
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        builder = builder.add_extension(_key_identifier(key), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        if hosts is not None:
            builder = builder.add_extension(hosts, critical=False)
        return _identity(builder.sign(self._key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    days: int,
    now: datetime,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - _EARLIER).not_valid_after(now + timedelta(days=days))


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_identifier(key: ec.EllipticCurvePrivateKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def _identity(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Identity:
    return Identity(
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        serial=certificate.serial_number,
        expires=certificate.not_valid_after_utc,
    )
