"""The gateways of A and B as callers see them, and copies of what their volumes hold.

They are called from here, by a way that network policies leave open to the node: who calls is told by the credential alone.
"""

import base64
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from e2e import gateways
from e2e.gateways import ApiKey
from e2e.isolation.stage import MODEL, Place, Side, World
from e2e.kube import Json
from r1plus_contract.gateway import DIR_KEY, DIR_STORE, GATEWAY_ADMIN

TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Caller:
    """A side's gateway, and a key of it."""

    side: Side
    url: str
    """Ends with /v1."""
    key: ApiKey


@contextmanager
def call_both(world: World) -> Iterator[tuple[Caller, Caller]]:
    """Make a key of each gateway, and wait until both answer with it."""
    with (
        gateways.reach(world.target, world.a.namespace) as url_of_a,
        gateways.reach(world.target, world.b.namespace) as url_of_b,
    ):
        made = []
        for side, url in ((world.a, url_of_a), (world.b, url_of_b)):
            key = gateways.create_key(world.kube, side.namespace, f"key-of-{side.canary}")
            with gateways.open_client(url, key.secret) as client:
                gateways.until_verified(client, world.kube, side.name)
            made.append(Caller(side, url, key))
        yield made[0], made[1]


def call(url: str, path: str, credential: str, method: str = "GET", body: Any = None, **headers: str) -> httpx.Response:
    """Call a gateway; `path` begins with /. Without a credential there is no header for one."""
    sent = _authorize(credential) | headers
    with httpx.Client(trust_env=False, timeout=TIMEOUT_SECONDS) as client:
        return client.request(method, url.removesuffix("/v1") + path, headers=sent, json=body)


def ask(url: str, credential: str, **headers: str) -> httpx.Response:
    """Ask the model, with headers besides."""
    body = {"model": MODEL, "messages": gateways.QUESTION, "max_tokens": 4}
    sent = _authorize(credential) | headers
    with httpx.Client(trust_env=False, timeout=TIMEOUT_SECONDS) as client:
        return client.post(f"{url}/chat/completions", json=body, headers=sent)


def _authorize(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"} if credential else {}


@dataclass(frozen=True, slots=True)
class Forger:
    """Who makes tokens that say what those of an account would say, and cannot sign as the cluster does."""

    world: World

    def _read(self) -> tuple[Json, Json]:
        """Return header and claims of a token of B's gateway's administrator."""
        real = gateways.create_token(self.world.kube, self.world.b.namespace, GATEWAY_ADMIN)
        return jwt.get_unverified_header(real), jwt.decode(real, options={"verify_signature": False})

    def sign_by_own_key(self) -> str:
        """Return one under the id of the cluster's key."""
        header, claims = self._read()
        return jwt.encode(claims, _make_key(), "RS256", {"kid": header["kid"]})

    def sign_by_key_in_header(self) -> str:
        """Return one that brings the key with which to verify it."""
        header, claims = self._read()
        key = _make_key()
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
        return jwt.encode(claims, key, "RS256", {"kid": header["kid"], "jwk": public, "jku": "http://example.org/jwks"})

    def sign_by_public_key(self) -> str:
        """Return one whose secret is the cluster's public key."""
        header, claims = self._read()
        keys = json.loads(self.world.kube.kubectl("get", "--raw", "/openid/v1/jwks"))["keys"]
        (found,) = (key for key in keys if key["kid"] == header["kid"])
        public: Any = jwt.PyJWK(found).key
        secret = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        head = {"alg": "HS256", "typ": "JWT", "kid": header["kid"]}
        message = b".".join(map(_encode, (json.dumps(head).encode(), json.dumps(claims).encode())))
        mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(message, secret)
        return (message + b"." + _encode(mac)).decode()

    def sign_by_nothing(self) -> str:
        """Return one without a signature."""
        _, claims = self._read()
        return jwt.encode(claims, None, "none")

    def change_claims(self) -> str:
        """Return A's own token with B's name in it, under the signature that it had."""
        own = gateways.create_token(self.world.kube, self.world.a.namespace, GATEWAY_ADMIN)
        header, _, signature = own.split(".")
        _, claims = self._read()
        return f"{header}.{_encode(json.dumps(claims).encode()).decode()}.{signature}"


def _make_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _encode(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")


_COPY = f"""
import base64, io, tarfile
packed = io.BytesIO()
with tarfile.open(fileobj=packed, mode="w:gz") as archive:
    archive.add({DIR_STORE!r}, arcname=".", filter=lambda one: None if "lost+found" in one.name else one)
print(base64.b64encode(packed.getvalue()).decode())
"""
_OPEN = """
import base64, io, json, sqlite3, sys, tarfile, tempfile
from pathlib import Path
from r1plus_gateway.store.errors import StoreError
from r1plus_gateway.store.administration.key_records import list_records
from r1plus_gateway.store.database.opening import StoreConfig, open_data

request = json.load(sys.stdin)
with tempfile.TemporaryDirectory() as scratch:
    folder, secret = Path(scratch, "copy"), Path(scratch, "secret")
    folder.mkdir(), secret.mkdir()
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(request["copy"]))) as archive:
        archive.extractall(folder)
    if request["half"]:
        (secret / "half-1").write_text(request["half"])
    uid = request["uid"] or json.loads(Path("/etc/r1plus/gateway/gateway.json").read_text())["data"]["tenantUid"]
    try:
        data = open_data(StoreConfig(uid, secret if request["half"] else Path(request["secret"]), folder))
        with data.database.transaction(writes=False) as connection:
            said = "open " + " ".join(record.id for record in list_records(connection))
        data.database.close()
    except StoreError as error:
        said = error.reason.value
    try:
        plain = str(sqlite3.connect(folder / "tenant.db").execute("SELECT count(*) FROM sqlite_master").fetchall())
    except sqlite3.DatabaseError as error:
        plain = f"refused {error}"
    bytes_ = b"".join(path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file())
    words = [word for word in request["words"] if word.encode() in bytes_]
print(json.dumps([said, plain, words]))
"""


@dataclass(frozen=True, slots=True)
class Opening:
    """What came of a try to open a copy of a tenant's data."""

    said: str
    """`open` and the ids of its keys, or the reason why not."""
    plain: str
    """What SQLite without a key says."""
    words: list[str]
    """Which of the words stand in the files."""


def copy_volume(side: Side) -> str:
    """Return a copy of what a side's gateway keeps on its volume, as somebody has it who got at the volume or a backup."""
    return side.gateway().run("python3", "-c", _COPY).strip()


def open_copy(place: Place, copy: str, *, uid: str = "", half: str = "", words: tuple[str, ...] = ()) -> Opening:
    """Open a copy inside a gateway, with its own half of the key and as its own tenant unless said otherwise."""
    given = json.dumps({"copy": copy, "uid": uid, "half": half, "secret": DIR_KEY, "words": words})
    return Opening(*json.loads(place.run("python3", "-c", _OPEN, given=given)))


def make_half() -> str:
    """Return half of a key that is no tenant's."""
    return secrets.token_hex(32)
