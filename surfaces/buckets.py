"""Who is in which part of the traffic: a pure function of a salt and a unit, the same everywhere.

Part of the contract, so that analyses outside the platform can repeat it: the first
53 bits of SHA-256 over ``salt``, the byte 0x1F and ``unit`` in UTF-8, as a number in
[0, 1). A unit is in a share of the traffic where its number is below the share, so
whoever is in a share is in every larger one. Another salt picks others.

    salt                unit        bucket
    canary:products-v3  session-1   0.3473072875849553
    canary:products-v3  session-2   0.5595134919109725
    canary:products-v4  session-1   0.9621073530522923
    canary:products-v3  (empty)     0.14186623270079324
    canary:products-v3  Zoë         0.4007963168097466
"""

from hashlib import sha256

# As many bits as a float holds exactly.
BITS = 53


def bucket(salt: str, unit: str) -> float:
    """Return where the unit stands among all units of this salt, in [0, 1)."""
    # Texts from JSON may hold halves of surrogate pairs.
    digest = sha256(f"{salt}\x1f{unit}".encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> (64 - BITS)) / (1 << BITS)


def unit_of(session_id: str | None, user_id: str | None, request_id: str) -> str:
    """Return what stays in its part: the session, else the user, else this request alone."""
    return session_id or user_id or request_id
