"""The digest of an API key: what is stored, and what a request's key is looked up by."""

import hashlib


def digest(plaintext: str) -> str:
    """Return the hex digest of a key. Its 256 random bits need no slow hash."""
    return hashlib.sha256(plaintext.encode()).hexdigest()
