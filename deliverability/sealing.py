"""Credentials at rest: sealed with a key derived from SECRET_KEY, with room for rotation.

Fernet (AES-128-CBC and HMAC-SHA256) over HKDF-SHA256 (RFC 5869); set SECRET_KEY_FALLBACKS
while changing SECRET_KEY.
"""

from __future__ import annotations

import base64
from functools import cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from deliverability.conf import sealing_secrets


class SealBroken(Exception):
    """The stored credential cannot be opened with any key that we have."""


def seal(secret: str) -> bytes:
    return _fernet(tuple(sealing_secrets())).encrypt(secret.encode()) if secret else b""


def unseal(sealed: bytes) -> str:
    if not sealed:
        return ""
    try:
        return _fernet(tuple(sealing_secrets())).decrypt(bytes(sealed)).decode()
    except InvalidToken:
        raise SealBroken(
            "A stored password was sealed with another SECRET_KEY. Put the former key into "
            "SECRET_KEY_FALLBACKS, or enter the password anew."
        ) from None


@cache
def _fernet(secrets: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(_derive(secret)) for secret in secrets])


def _derive(secret: str) -> bytes:
    kdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"postroad sealed credentials")
    return base64.urlsafe_b64encode(kdf.derive(secret.encode()))
