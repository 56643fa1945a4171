"""A certificate for the mailbox providers, made anew at each start and trusted by nobody.

The private key lives in memory and, for the moment in which OpenSSL wants a file, in a
temporary one. The certificate itself is left in the state folder for clients that want to
check it. RFC 3207 (STARTTLS).
"""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_VALID_FOR = timedelta(days=90)


def build_certificate(names: Sequence[str], *, now: datetime) -> tuple[bytes, bytes]:
    """Certificate and private key as PEM, for these names and for loopback."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Sandbox mailbox providers")])
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in (*names, "localhost")]
    alternatives.append(x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _VALID_FOR)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def create_tls_context(names: Sequence[str], folder: Path) -> ssl.SSLContext:
    """A server's context with a fresh certificate, which is left in `folder`."""
    certificate, key = build_certificate(names, now=datetime.now(UTC))
    (folder / "certificate.pem").write_bytes(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile(dir=folder) as both:
        both.write(key + certificate)
        both.flush()
        context.load_cert_chain(both.name)
    return context
