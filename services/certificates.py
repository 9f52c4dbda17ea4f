"""A certificate for loopback or another address, and the authority that signed it, made once for a service's folder."""

from __future__ import annotations

import datetime as dt
import ipaddress
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cluster.embedded.passwords import write_private

_DAYS = 365
_LOOPBACK = "127.0.0.1"


def make(folder: Path, name: str, key: str, certificate: str, host: str = _LOOPBACK) -> Path:
    """`folder/name/<key>` (PKCS 8) and `folder/name/<certificate>`, in PEM; made where they are missing.

    Returns:
        the authority's certificate, by which clients know the server.
    """
    authority, own = folder / "ca.crt", folder / name
    if not (own / certificate).is_file():
        own.mkdir(parents=True, exist_ok=True)
        signer, root = _key(), _name(f"IntelGraph trial authority {secrets.token_hex(4)}")  # found by name, of several
        _write(authority, _certificate(root, root, signer, signer, authority=True).public_bytes(_PEM))
        server = _key()
        signed = _certificate(_name(host), root, server, signer, authority=False, host=host)
        private = server.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        _write(own / key, private)
        _write(own / certificate, signed.public_bytes(_PEM))
    return authority


_PEM = serialization.Encoding.PEM


def _write(path: Path, pem: bytes) -> None:
    write_private(path, pem.decode())


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey,
    authority: bool, host: str = _LOOPBACK,
) -> x509.Certificate:  # fmt: skip
    now = dt.datetime.now(dt.UTC)
    names = [
        x509.DNSName("localhost"),
        *(x509.IPAddress(ipaddress.ip_address(address)) for address in {_LOOPBACK, host}),
    ]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
    )
    if not authority:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA256())
