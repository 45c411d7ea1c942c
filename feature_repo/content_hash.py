"""The hash that identifies the bytes of an image or a title, so that equal content is encoded once.

BLAKE2b with 16 bytes is collision-resistant: nobody can construct two contents with the same hash. By chance, any two
of 10^10 contents share a hash with a probability of about 10^-19 (birthday bound n^2 / 2^129).
"""

from hashlib import blake2b

BYTES = 16


def content_hash(content: bytes | memoryview) -> bytes:
    """Return the 16-byte BLAKE2b hash of the content, which may be empty. It is the same in every process."""
    return blake2b(content, digest_size=BYTES).digest()
