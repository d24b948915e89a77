"""A key for who comes later: what is put into a job's folder can be opened by that job alone.

The first launcher gives the job a secret, in the submitted script that only Slurm has, and lays its public half into
the folder. A later launcher agrees on a pad with it (Diffie-Hellman over group 14 of RFC 3526, since a compute node has
the standard library of Python 3.6 and no more) and leaves the key of its attempt under that pad. So the folder alone
tells no secret, of whichever attempt.
"""

import hashlib
import os

PRIME = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD"
    "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F"
    "83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B"
    "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510"
    "15728E5A8AACAA68FFFFFFFFFFFFFFFF",
    16,
)
BASE = 2
SECRET_BYTES = 64


def public_of(key: bytes) -> str:
    """The half that may lie in the folder, in hex."""
    return "%x" % pow(BASE, _exponent(key), PRIME)


def sealed_for(public: str, content: bytes, about: str) -> dict:
    """``content`` for who holds the key behind ``public``; ``about``: what it is for, and for nothing else."""
    own = os.urandom(SECRET_BYTES)
    pad = _pad(pow(int(public, 16), _exponent(own), PRIME), about, len(content))
    return {"half": public_of(own), "content": _crossed(content, pad).hex()}


def opened(key: bytes, sealed: dict, about: str) -> bytes:
    content = bytes.fromhex(sealed["content"])
    return _crossed(content, _pad(pow(int(sealed["half"], 16), _exponent(key), PRIME), about, len(content)))


def _exponent(key: bytes) -> int:
    return int.from_bytes(hashlib.shake_256(b"exponent:" + key).digest(SECRET_BYTES), "big")


def _pad(agreed: int, about: str, size: int) -> bytes:
    return hashlib.shake_256(agreed.to_bytes(256, "big") + about.encode()).digest(size)


def _crossed(content: bytes, pad: bytes) -> bytes:
    return bytes(one ^ other for one, other in zip(content, pad))
