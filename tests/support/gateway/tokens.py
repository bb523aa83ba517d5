"""Tokens of ServiceAccounts as an API server signs them, and the JWKS that verifies them."""

import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

ISSUER = "https://kubernetes.default.svc.cluster.local"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def make_jwk(key: PrivateKey, key_id: str) -> dict[str, Any]:
    """Return the public key as an entry of a JWKS."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        document: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)
        return {**document, "kid": key_id, "use": "sig", "alg": "RS256"}
    return {**jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True), "kid": key_id, "use": "sig", "alg": "ES256"}


def make_claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a token as the API server makes it; None removes one."""
    now = int(time.time())
    claims = {
        "aud": ["r1plus-gateway"],
        "exp": now + 600,
        "iat": now,
        "nbf": now,
        "iss": ISSUER,
        "jti": "5e6a",
        "sub": "system:serviceaccount:team-app:web",
        "kubernetes.io": {"namespace": "team-app", "serviceaccount": {"name": "web", "uid": "1"}},
    }
    return {name: value for name, value in (claims | changes).items() if value is not None}


def make_account(namespace: str, name: str) -> dict[str, Any]:
    """Return the claims that name a ServiceAccount."""
    return {
        "sub": f"system:serviceaccount:{namespace}:{name}",
        "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name}},
    }


def sign(key: PrivateKey, claims: dict[str, Any], key_id: str | None = "k1", algorithm: str = "RS256") -> str:
    """Return a signed token."""
    headers = {"kid": key_id} if key_id else {}
    return jwt.encode(claims, key, algorithm=algorithm, headers=headers)
