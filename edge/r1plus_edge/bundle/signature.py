"""Ed25519 with OpenSSL's libcrypto, which Python's own hashlib is linked with.

The installer verifies a bundle before anything is installed, so before there is a `cryptography` package.
"""

import ctypes
import hashlib
from typing import Final

from r1plus_contract.suites.suite_files import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, decode_base64
from r1plus_edge.errors import EdgeError

LIBRARY: Final = "libcrypto.so.3"
_ED25519: Final = 1087
"""EVP_PKEY_ED25519 of OpenSSL's obj_mac.h."""


def verify_signature(public_key: str, signature: str, message: bytes, library: str = LIBRARY) -> bool:
    """Return whether the key made this signature of the message; both are in base64.

    Raises:
        EdgeError: this machine has no OpenSSL 3.
    """
    key, sealed = decode_base64(public_key, PUBLIC_KEY_BYTES), decode_base64(signature, SIGNATURE_BYTES)
    if key is None or sealed is None:
        return False
    crypto = _load(library)
    handle = crypto.EVP_PKEY_new_raw_public_key(_ED25519, None, key, len(key))
    context = crypto.EVP_MD_CTX_new()
    try:
        if not handle or not context or crypto.EVP_DigestVerifyInit(context, None, None, None, handle) != 1:
            return False
        return bool(crypto.EVP_DigestVerify(context, sealed, len(sealed), message, len(message)) == 1)
    finally:
        crypto.EVP_MD_CTX_free(context)
        crypto.EVP_PKEY_free(handle)


def _load(library: str) -> ctypes.CDLL:
    """Load libcrypto, and declare what is called of it."""
    hashlib.new("sha256")  # Has the library in this process, where Python is linked with it.
    try:
        crypto = ctypes.CDLL(library)
    except OSError as error:
        raise EdgeError(
            f"{library}: OpenSSL 3 cannot be loaded ({error}), so no signature can be verified; install Debian's"
            " libssl3"
        ) from error
    pointer, size, data = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
    for name, result, arguments in (
        ("EVP_PKEY_new_raw_public_key", pointer, (ctypes.c_int, pointer, data, size)),
        ("EVP_MD_CTX_new", pointer, ()),
        ("EVP_DigestVerifyInit", ctypes.c_int, (pointer, pointer, pointer, pointer, pointer)),
        ("EVP_DigestVerify", ctypes.c_int, (pointer, data, size, data, size)),
        ("EVP_MD_CTX_free", None, (pointer,)),
        ("EVP_PKEY_free", None, (pointer,)),
    ):
        function = getattr(crypto, name)
        function.restype, function.argtypes = result, arguments
    return crypto
