"""Tokens of ServiceAccounts: which are valid, who they are of, and keys that rotate."""

import base64
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from r1plus_gateway.access.caller import AccessError, CallerKind, Limits
from r1plus_gateway.access.service_accounts import Grant, JwksFile, TokenVerifier
from support.gateway.tokens import ISSUER, make_account, make_claims, make_jwk, sign

pytestmark = pytest.mark.first_run_counts


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass
class Cluster:
    """A cluster's keys in a file, and which namespaces may call."""

    path: Path
    grants: dict[str, Grant] = field(default_factory=lambda: {"team-app": Grant()})

    def publish(self, *keys: dict[str, Any]) -> None:
        scratch = self.path.with_suffix(".new")
        scratch.write_text(json.dumps({"keys": list(keys)}))
        scratch.replace(self.path)

    def make_verifier(self, not_before: float = 0.0) -> TokenVerifier:
        return TokenVerifier(JwksFile(self.path), ISSUER, "team-credit", self.grants.get, not_before)


@pytest.fixture
def cluster(tmp_path: Path, rsa_key: rsa.RSAPrivateKey) -> Iterator[Cluster]:
    found = Cluster(tmp_path / "jwks.json")
    found.publish(make_jwk(rsa_key, "k1"))
    yield found


def test_a_token_says_which_service_account_calls(cluster: Cluster, rsa_key: rsa.RSAPrivateKey) -> None:
    cluster.grants["team-app"] = Grant(frozenset({"credit"}), Limits(requests_per_minute=5))
    caller = cluster.make_verifier().verify(sign(rsa_key, make_claims()))
    assert caller is not None
    assert (caller.kind, caller.id, caller.namespace) == (CallerKind.SERVICE_ACCOUNT, "team-app/web", "team-app")
    assert (caller.models, caller.limits) == (frozenset({"credit"}), Limits(requests_per_minute=5))
    assert caller.scopes == frozenset()


def test_an_api_server_may_sign_with_elliptic_curves(cluster: Cluster, ec_key: ec.EllipticCurvePrivateKey) -> None:
    cluster.publish(make_jwk(ec_key, "k1"))
    assert cluster.make_verifier().verify(sign(ec_key, make_claims(), algorithm="ES256")) is not None


AUDIENCES = {
    "any gateway": (["r1plus-gateway"], True),
    "this tenant's gateway": (["r1plus-gateway/team-credit"], True),
    "another tenant's gateway": (["r1plus-gateway/team-app"], False),
    "a tenant whose name begins alike": (["r1plus-gateway/team-credit2"], False),
    "no tenant's gateway": (["r1plus-gateway/"], False),
}


@pytest.mark.parametrize(("audience", "is_valid"), AUDIENCES.values(), ids=AUDIENCES)
def test_a_token_may_be_for_one_tenants_gateway_alone(
    cluster: Cluster, rsa_key: rsa.RSAPrivateKey, audience: list[str], is_valid: bool
) -> None:
    caller = cluster.make_verifier().verify(sign(rsa_key, make_claims(aud=audience)))
    assert (caller is not None) is is_valid


ADMINS = {
    "of the tenant's own namespace": ("team-credit", "r1plus-gateway-admin", CallerKind.ADMIN),
    "of another namespace": ("team-app", "r1plus-gateway-admin", CallerKind.SERVICE_ACCOUNT),
    "under another name": ("team-credit", "r1plus-gateway-admin2", CallerKind.SERVICE_ACCOUNT),
}


@pytest.mark.parametrize(("namespace", "name", "kind"), ADMINS.values(), ids=ADMINS)
def test_the_administrator_is_one_account_of_the_tenants_own_namespace(
    cluster: Cluster, rsa_key: rsa.RSAPrivateKey, namespace: str, name: str, kind: CallerKind
) -> None:
    cluster.grants["team-credit"] = Grant()
    caller = cluster.make_verifier().verify(sign(rsa_key, make_claims(**make_account(namespace, name))))
    assert caller is not None
    assert caller.kind is kind


def test_the_administrator_needs_no_grant(cluster: Cluster, rsa_key: rsa.RSAPrivateKey) -> None:
    claims = make_claims(**make_account("team-credit", "r1plus-gateway-admin"))
    assert cluster.make_verifier().verify(sign(rsa_key, claims)) is not None


def test_a_namespace_that_may_not_call_is_told_so(cluster: Cluster, rsa_key: rsa.RSAPrivateKey) -> None:
    with pytest.raises(AccessError, match=r"Namespace team-x may not call.*spec.gateway.from") as refusal:
        cluster.make_verifier().verify(sign(rsa_key, make_claims(**make_account("team-x", "web"))))
    assert (refusal.value.status, refusal.value.code) == (403, "namespace_not_allowed")


@pytest.mark.parametrize(("namespace", "group_id"), [("team-app", "team-app"), ("team-credit", "team-credit/web")])
def test_accounts_of_another_namespace_share_a_turn_as_it_can_make_any_number(
    cluster: Cluster, rsa_key: rsa.RSAPrivateKey, namespace: str, group_id: str
) -> None:
    cluster.grants["team-credit"] = Grant()
    caller = cluster.make_verifier().verify(sign(rsa_key, make_claims(**make_account(namespace, "web"))))
    assert caller is not None
    assert (caller.id, caller.group_id) == (f"{namespace}/web", group_id)


CREATED = 30
"""Seconds since the tenant's namespace was created."""
AGES = {
    "the old tenant's administrator": ("team-credit", "r1plus-gateway-admin", CREATED + 30, False),
    "an account of the old tenant's": ("team-credit", "web", CREATED + 30, False),
    "the tenant's administrator": ("team-credit", "r1plus-gateway-admin", CREATED - 20, True),
    "an account of another namespace, which is older": ("team-app", "web", CREATED + 30, True),
}


@pytest.mark.parametrize(("namespace", "name", "age", "is_valid"), AGES.values(), ids=AGES)
def test_a_namespace_that_was_made_again_takes_no_tokens_of_the_one_before(
    cluster: Cluster, rsa_key: rsa.RSAPrivateKey, namespace: str, name: str, age: int, is_valid: bool
) -> None:
    cluster.grants["team-credit"] = Grant()
    now = int(time.time())
    times = {"iat": now - age, "nbf": now - age, "exp": now - age + 600}
    token = sign(rsa_key, make_claims(**make_account(namespace, name), **times))
    assert (cluster.make_verifier(not_before=now - CREATED).verify(token) is not None) is is_valid
    assert cluster.make_verifier().verify(token) is not None


BAD_CLAIMS: dict[str, Callable[[int], dict[str, Any]]] = {
    "another audience": lambda now: {"aud": ["https://kubernetes.default.svc"]},
    "no audience": lambda now: {"aud": None},
    "another issuer": lambda now: {"iss": "https://elsewhere"},
    "no issuer": lambda now: {"iss": None},
    "expired": lambda now: {"iat": now - 660, "nbf": now - 660, "exp": now - 60},
    "not valid yet": lambda now: {"nbf": now + 300},
    "issued in the future": lambda now: {"iat": now + 300, "exp": now + 800},
    "a life of more than ten minutes": lambda now: {"exp": now + 601},
    "a life of a year": lambda now: {"exp": now + 366 * 86400},
    "no expiry": lambda now: {"exp": None},
    "no time of issue": lambda now: {"iat": None},
    "no nbf": lambda now: {"nbf": None},
    "times as texts": lambda now: {"iat": str(now), "exp": str(now + 600)},
    "times that are not finite": lambda now: {"exp": float("inf")},
    "times that are no numbers": lambda now: {"exp": float("nan")},
    "a life of no length": lambda now: {"iat": now + 5, "exp": now + 5, "nbf": now},
    "no claims of Kubernetes": lambda now: {"kubernetes.io": None},
    "claims of Kubernetes that are a text": lambda now: {"kubernetes.io": "team-app"},
    "no service account": lambda now: {"kubernetes.io": {"namespace": "team-app"}},
    "a namespace that is a list": lambda now: {
        "kubernetes.io": {"namespace": ["team-app"], "serviceaccount": {"name": "web"}}
    },
    "an empty namespace": lambda now: make_account("", "web"),
    "a subject that says another account": lambda now: {"sub": "system:serviceaccount:team-app:other"},
    "a subject that says a user": lambda now: {"sub": "admin"},
}  # fmt: skip


@pytest.mark.parametrize("changes", BAD_CLAIMS.values(), ids=BAD_CLAIMS)
def test_a_token_with_wrong_claims_is_refused(
    cluster: Cluster, rsa_key: rsa.RSAPrivateKey, changes: Callable[[int], dict[str, Any]]
) -> None:
    now = int(time.time())
    times = {"iat": now, "nbf": now, "exp": now + 600}
    verifier = cluster.make_verifier()
    assert verifier.verify(sign(rsa_key, make_claims(**times))) is not None
    assert verifier.verify(sign(rsa_key, make_claims(**times | changes(now)))) is None


def test_clocks_may_differ_by_a_few_seconds(cluster: Cluster, rsa_key: rsa.RSAPrivateKey) -> None:
    now = int(time.time())
    claims = make_claims(iat=now + 5, nbf=now + 5, exp=now + 605)
    assert cluster.make_verifier().verify(sign(rsa_key, claims)) is not None


def encode(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def test_an_algorithm_that_no_api_server_uses_is_refused(cluster: Cluster, rsa_key: rsa.RSAPrivateKey) -> None:
    verifier, claims = cluster.make_verifier(), make_claims()
    assert verifier.verify(sign(rsa_key, claims, algorithm="RS256")) is not None
    unsigned = f"{encode({'alg': 'none', 'kid': 'k1'})}.{encode(claims)}."
    by_public_key = jwt.encode(
        claims, "any secret that is long enough to use", algorithm="HS256", headers={"kid": "k1"}
    )
    for token in (
        unsigned,
        by_public_key,
        sign(rsa_key, claims, algorithm="RS512"),
        sign(rsa_key, claims, algorithm="PS256"),
    ):
        assert verifier.verify(token) is None


def test_a_header_that_names_another_algorithm_than_the_key_is_refused(
    cluster: Cluster, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    cluster.publish(make_jwk(ec_key, "k1"), make_jwk(rsa_key, "k2"))
    assert cluster.make_verifier().verify(sign(rsa_key, make_claims(), "k1")) is None
    assert cluster.make_verifier().verify(sign(rsa_key, make_claims(), "k2")) is not None


MALFORMED = {
    "nothing": "",
    "dots": "..",
    "no base64": "%.%.%",
    "a header that is a list": f"{encode([])}.{encode({})}.x",
    "a key id that is a number": f"{encode({'alg': 'RS256', 'kid': 1})}.{encode({})}.x",
    "deep JSON": f"{base64.urlsafe_b64encode(b'[' * 5000).decode().rstrip('=')}.e30.x",
    "deep JSON with a known key": f"{encode({'alg': 'RS256', 'kid': 'k1'})}.{base64.urlsafe_b64encode(b'[' * 5000).decode().rstrip('=')}.x",
    "a megabyte": "a." + "b" * 2**20 + ".c",
    "a lone surrogate": "\ud800.a.b",
    "NUL": "a\0.b.c",
}


@pytest.mark.parametrize("token", MALFORMED.values(), ids=MALFORMED)
def test_what_is_not_a_token_is_refused(cluster: Cluster, token: str) -> None:
    assert cluster.make_verifier().verify(token) is None


def test_a_token_without_a_key_id_or_signed_by_another_key_is_refused(
    cluster: Cluster, rsa_key: rsa.RSAPrivateKey
) -> None:
    verifier, foreign = cluster.make_verifier(), rsa.generate_private_key(65537, 2048)
    assert verifier.verify(sign(rsa_key, make_claims(), "k1")) is not None
    assert verifier.verify(sign(rsa_key, make_claims(), None)) is None
    assert verifier.verify(sign(rsa_key, make_claims(), "k9")) is None
    assert verifier.verify(sign(foreign, make_claims())) is None


def test_while_keys_rotate_both_are_valid_and_afterwards_one(cluster: Cluster, rsa_key: rsa.RSAPrivateKey) -> None:
    verifier, newer = cluster.make_verifier(), rsa.generate_private_key(65537, 2048)
    old_token, new_token = sign(rsa_key, make_claims()), sign(newer, make_claims(), "k2")
    assert [verifier.verify(token) is not None for token in (old_token, new_token)] == [True, False]
    cluster.publish(make_jwk(rsa_key, "k1"), make_jwk(newer, "k2"))
    assert [verifier.verify(token) is not None for token in (old_token, new_token)] == [True, True]
    cluster.publish(make_jwk(newer, "k2"))
    assert [verifier.verify(token) is not None for token in (old_token, new_token)] == [False, True]


def test_two_keys_may_have_one_id(cluster: Cluster, rsa_key: rsa.RSAPrivateKey) -> None:
    cluster.publish(make_jwk(rsa.generate_private_key(65537, 2048), "k1"), make_jwk(rsa_key, "k1"))
    assert cluster.make_verifier().verify(sign(rsa_key, make_claims())) is not None


UNUSABLE = {
    "gone": None,
    "empty": "",
    "no JSON": "{",
    "no keys": '{"keys": []}',
    "another document": '{"items": []}',
    "keys that are texts": '{"keys": ["a"]}',
    "a list": "[]",
    "only keys of an unknown kind": '{"keys": [{"kid": "a", "kty": "new"}]}',
    "a secret as key": '{"keys": [{"kid": "k1", "kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}]}',
    "deep JSON": "[" * 100_000,
}


@pytest.mark.parametrize("text", UNUSABLE.values(), ids=UNUSABLE)
def test_a_file_that_cannot_be_used_keeps_the_keys_of_before_and_is_a_problem(
    cluster: Cluster, rsa_key: rsa.RSAPrivateKey, text: str | None
) -> None:
    jwks = JwksFile(cluster.path)
    verifier = TokenVerifier(jwks, ISSUER, "team-credit", cluster.grants.get)
    assert verifier.verify(sign(rsa_key, make_claims())) is not None
    assert jwks.problem == ""
    cluster.path.unlink()
    if text is not None:
        cluster.path.write_text(text)
    assert verifier.verify(sign(rsa_key, make_claims())) is not None
    assert f"{cluster.path} has no usable JWKS" in jwks.problem
    assert (
        TokenVerifier(JwksFile(cluster.path), ISSUER, "t", cluster.grants.get).verify(sign(rsa_key, make_claims()))
        is None
    )
    cluster.publish(make_jwk(rsa_key, "k2"))
    assert verifier.verify(sign(rsa_key, make_claims(), "k2")) is not None
    assert jwks.problem == ""


def test_an_unchanged_file_is_not_read_again(cluster: Cluster, rsa_key: rsa.RSAPrivateKey) -> None:
    verifier = cluster.make_verifier()
    assert verifier.verify(sign(rsa_key, make_claims())) is not None
    status = cluster.path.stat()
    cluster.path.write_bytes(b" " * status.st_size)
    os.utime(cluster.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert verifier.verify(sign(rsa_key, make_claims())) is not None


@pytest.mark.parametrize(("bits", "is_valid"), [(1024, False), (2048, True)])
def test_a_short_rsa_key_is_refused(cluster: Cluster, bits: int, is_valid: bool) -> None:
    key = rsa.generate_private_key(65537, bits)
    cluster.publish(make_jwk(key, "k1"))
    header, claims = encode({"alg": "RS256", "kid": "k1"}), encode(make_claims())
    signature = key.sign(f"{header}.{claims}".encode(), PKCS1v15(), SHA256())
    token = f"{header}.{claims}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    assert (cluster.make_verifier().verify(token) is not None) is is_valid
