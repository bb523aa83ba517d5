"""Documents from a structural schema: valid ones, and ones a step beside it. The CRD's own schema is the only source.

Called by `campaign`. Everything comes from one `random.Random`, so that a seed is a run.
"""

import copy
import functools
import ipaddress
import random
import re._parser as parser
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from r1plus_model_repo.catalog.types import EMBEDDING_ONLY, GENERATION_ONLY, EngineKind
from r1plus_model_repo.catalog.wire import DNS_LABEL
from r1plus_operator.api.types import LABEL_KEY

Json = dict[str, Any]
ONE_OF = (("image", "archive"), ("inheritedFrom", "measured", "claimedBy"), ("cidr", "namespace"))
"""Fields of one object, of which a CEL rule wants exactly one."""
SPOILS = (0, 0, 0, 0, 1, 1, 1, 1, 2, 3)
"""How many places of a document are spoilt: in four of ten none."""
ODD_NETWORKS = (
    "0.0.0.0/0", "0.0.0.0/00", "00.0.0.0/0", "10.0.0.1/8", "010.0.0.0/8", "127.0.0.1/8", "126.0.0.0/7", "127.0.0.0/7",
    "127.255.255.255/32", "169.254.169.254/32", "169.254.0.0/15", "256.0.0.0/8", "1.2.3.4/33", "::/0", "::/128", "::1/128",
    "::1/127", "1::/0", "fe80::1/64", "fe80::/9", "fec0::/10", "fd00:ec2::254/128", "fd00:ec2:0:0:0:0:0:254/128",
    "fd00:ec2::/31", "::ffff:a9fe:a9fe/128", "::ffff:0:0/96", "::fffe:0:0/96", "1::2::3/64", "1:2:3:4:5:6:7/64", "1:2:3:4:5:6:7:8:9/64",
    "1:2:3:4:5:6:7::/64", "::2:3:4:5:6:7:8/64", "1:2:3:4::5:6:7:8/64", "12345::/64", "00001::/64", ":::/64", "1:/64", "64:ff9b::a9fe:a9fe/128",
)  # fmt: skip
LETTERS = "abcXYZ019-_./ é\u00a0漢🙂"


def matching(rng: random.Random, pattern: str, longest: int, shortest: int = 0) -> str:
    """A string that the pattern takes; the schema's patterns use no more of the language than is spoken here."""
    parsed = _parsed(pattern)
    while not shortest <= len(text := "".join(_spelt(rng, parsed))) <= longest:
        pass
    return text


@functools.cache
def _parsed(pattern: str) -> Any:
    return parser.parse(pattern)


def _spelt(rng: random.Random, parts: Any) -> Iterator[str]:
    for operation, operand in parts:
        match str(operation):
            case "LITERAL":
                yield chr(operand)
            case "IN" if str(operand[0][0]) == "NEGATE":
                yield rng.choice([one for one in LETTERS if not any(_in(ord(one), part) for part in operand[1:])])
            case "IN":
                kind, chosen = rng.choice(operand)
                yield chr(chosen if str(kind) == "LITERAL" else rng.randint(*chosen))
            case "MAX_REPEAT":
                least, most, repeated = operand
                for _ in range(
                    rng.choice((least, least + 1, least + 6)) if most > least + 6 else rng.randint(least, most)
                ):
                    yield from _spelt(rng, repeated)
            case "SUBPATTERN":
                yield from _spelt(rng, operand[-1])
            case "BRANCH":
                yield from _spelt(rng, rng.choice(operand[1]))
            case "AT":
                continue
            case other:
                raise ValueError(f"{other}: not spoken here; teach it")


def _in(code: int, part: tuple[Any, Any]) -> bool:
    kind, chosen = part
    return code == chosen if str(kind) == "LITERAL" else chosen[0] <= code <= chosen[1]


def network(rng: random.Random) -> str:
    """In either family's notation, at times an address of a node or of a metadata service, at times none at all."""
    if rng.random() < 0.3:
        return rng.choice(ODD_NETWORKS)
    if rng.random() < 0.5:
        return f"{ipaddress.IPv4Address(rng.getrandbits(32))}/{rng.randint(0, 33)}"
    address = ipaddress.IPv6Address(rng.getrandbits(128) & rng.choice((-1, -1 << 64, -1 << 112, 0xFFFF)))
    return f"{rng.choice((address.compressed, address.exploded))}/{rng.randint(0, 129)}"


@dataclass(frozen=True, slots=True)
class Site:
    """A place in a document: where it hangs, by what key, and what the schema says of it."""

    parent: Any
    key: str | int
    schema: Json


class Documents:
    """Draws documents of one schema."""

    def __init__(self, rng: random.Random, schema: Json) -> None:
        self._rng = rng
        self._schema = schema

    def draw(self) -> Any:
        """A document, perhaps spoilt in a few places, perhaps as a whole."""
        root = {"": self.valid(self._schema)}
        for _ in range(self._rng.choice(SPOILS)):
            site = self._rng.choice(list(sites(root, "", self._schema)))
            self._spoil(site)
        return root.get("")

    def valid(self, schema: Json) -> Any:
        """What the schema takes; CEL rules are met nearly always."""
        rng = self._rng
        if "enum" in schema:
            return rng.choice(schema["enum"])
        if schema["type"] == "object":
            return self._map(schema) if "additionalProperties" in schema else self._object(schema)
        if schema["type"] == "array":
            most = schema["maxItems"]
            count = max(rng.choice((0, 1, 1, 2, 3, most)), schema.get("minItems", 0))
            return [self.valid(schema["items"]) for _ in range(min(count, most))]
        if schema["type"] == "string":
            return self._string(schema)
        if schema["type"] == "boolean":
            return rng.random() < 0.5
        return self._number(schema)

    def _object(self, schema: Json) -> Json:
        needed = schema.get("required", ())
        fields = {
            name: self.valid(field)
            for name, field in schema["properties"].items()
            if name in needed or self._rng.random() < 0.5
        }
        return self._mended(fields, schema["properties"]) if self._rng.random() < 0.9 else fields

    def _mended(self, fields: Json, properties: Json) -> Json:
        """What the CEL rules ask for, which chance alone would seldom meet."""
        for ways in ONE_OF:
            if set(ways) <= properties.keys():
                taken = self._rng.choice(ways)
                rest = {name: value for name, value in fields.items() if name not in ways}
                fields = rest | {taken: fields.get(taken, self.valid(properties[taken]))}
        if "cidr" in fields:
            fields["cidr"] = network(self._rng)
        if fields.get("kind") == "ServiceAccount":
            fields["name"] = matching(self._rng, DNS_LABEL, 253)
        if "tolerationSeconds" in fields:
            fields["effect"] = "NoExecute"
        if fields.get("operator") == "Exists":
            fields.pop("value", None)
        return self._of_an_engine(self._of_attention(fields, properties), properties)

    def _of_attention(self, fields: Json, properties: Json) -> Json:
        """The same for what an engine's attention leaves out: whole blocks, and something."""
        if "recentTokens" in fields:
            start, recent = self._rng.randint(1, 64), self._rng.randint(1, 64)
            return {"startTokens": 32 * start, "recentTokens": 32 * recent, "maxTokens": 32 * (start + recent + 1)}
        if {"sparse", "eviction"} <= properties.keys() and not fields:
            return {"sparse": self.valid(properties["sparse"])}
        return fields

    def _of_an_engine(self, fields: Json, properties: Json) -> Json:
        """The same for an R1PlusEngine, whose parts must go together."""
        if {"best", "max"} <= fields.keys():
            fields["best"], fields["max"] = sorted((int(fields["best"]), int(fields["max"])))
        if "correctAtBatch1" in fields:
            counts = {name: int(fields[name]) for name in ("items", "correctAtBatch1", "correctAtBatch")}
            fields |= counts | {"items": max(counts.values())}
        if "cpuRequest" in properties:
            fields["cpuRequest"] = fields["cpu"]
        if "backend" in fields and "artifact" in properties:
            fields = self._of_one_kind(fields, properties)
            fields.setdefault("artifact", self.valid(properties["artifact"]))
            gpu = self.valid(properties["requirements"]["properties"]["gpu"])
            fields["requirements"].setdefault("gpu", gpu)
        if fields.get("kind") == EngineKind.EMBEDDING:
            fields["artifact"] = {**fields["artifact"], "image": "engines/f:1"}
            fields["artifact"].pop("archive", None)
            fields["requirements"].pop("gpu", None)
        elif fields.get("backend") == "openvino":
            for parent, name in (("architecture", "window"), ("architecture", "globalLayers"), ("requirements", "gpu")):
                fields[parent].pop(name, None)
            fields.pop("kvPrecision", None)
        elif fields.get("backend") == "vllm" and self._rng.choice((True, False)):  # On CPU.
            fields["requirements"].pop("gpu", None)
            fields.pop("kvPrecision", None)
        if fields.get("backend") != "openvino":
            fields.pop("attention", None)
        return self._of_a_build(fields, properties)

    def _of_a_build(self, fields: Json, properties: Json) -> Json:
        """The same for how an engine is built, which its backend decides."""
        if fields.get("backend") == "torch":
            fields.pop("build", None)
        if "build" in fields:
            on_gpu = fields.get("backend") in ("tensorrtllm", "tensorrt")
            way = "maxNumTokens" if on_gpu else "distill"
            terms = self.valid(properties["build"]["properties"][way])
            if isinstance(terms, dict) and ("runtimeRef" in terms) != ("numNodes" in terms):
                terms = {name: term for name, term in terms.items() if name not in ("runtimeRef", "numNodes")}
            fields["build"] = {way: terms}
        return fields

    def _of_one_kind(self, fields: Json, properties: Json) -> Json:
        """What an engine of its kind has: it answers prompts, or turns texts into vectors."""
        kinds = {EngineKind.EMBEDDING: EMBEDDING_ONLY, EngineKind.GENERATION: GENERATION_ONLY}
        is_embedding = fields.get("kind") == EngineKind.EMBEDDING
        own = kinds[EngineKind.EMBEDDING if is_embedding else EngineKind.GENERATION]
        foreign = kinds[EngineKind.GENERATION if is_embedding else EngineKind.EMBEDDING]
        kept = {name: value for name, value in fields.items() if name not in foreign}
        needed = {
            name: self.valid(properties[name]) for name in own if name not in ("kvPrecision", "attention", "build")
        }
        return {**needed, **kept, **({"backend": "openvino"} if is_embedding else {})}

    def _map(self, schema: Json) -> Json:
        count = self._rng.choice((0, 1, 2, 3, schema["maxProperties"]))
        return {matching(self._rng, LABEL_KEY, 253): self.valid(schema["additionalProperties"]) for _ in range(count)}

    def _string(self, schema: Json) -> str:
        least, most = schema.get("minLength", 0), schema["maxLength"]
        if "pattern" in schema:
            return matching(self._rng, schema["pattern"], most, least)
        length = self._rng.choice((least, min(8, most), most))
        return "".join(self._rng.choice(LETTERS) for _ in range(length))

    def _number(self, schema: Json) -> int | float:
        rng, least, most = self._rng, schema.get("minimum", 0), schema.get("maximum", 2**53 - 1)
        if schema["type"] == "number":
            return rng.choice((most, rng.uniform(least, most), max(least, 5e-324), min(most, 1 - 2**-53)))
        whole = rng.choice((least, most, rng.randint(least, most), rng.randint(least, min(most, least + 8))))
        return whole if rng.random() < 0.9 else float(whole)

    def _spoil(self, site: Site) -> None:
        """Put something else there, or take it away."""
        if isinstance(site.parent, dict) and self._rng.random() < 0.1:
            site.parent.pop(site.key, None)
            return
        there = site.parent.get(site.key) if isinstance(site.parent, dict) else site.parent[site.key]
        given = self.valid(site.schema) if there is None else there
        makers = (_ANYTHING, _BY_TYPE[site.schema["type"]])
        site.parent[site.key] = copy.deepcopy(self._rng.choice(self._rng.choice(makers))(self._rng, given, site.schema))


def sites(parent: Any, key: str | int, schema: Json) -> Iterator[Site]:
    """Every place of a document that the schema speaks of, those included that are empty."""
    yield Site(parent, key, schema)
    value = parent.get(key) if isinstance(parent, dict) else parent[key]
    if isinstance(value, dict) and "properties" in schema:
        for name, field in schema["properties"].items():
            yield from sites(value, name, field)
    elif isinstance(value, dict) and "additionalProperties" in schema:
        for name in value:
            yield from sites(value, name, schema["additionalProperties"])
    elif isinstance(value, list) and "items" in schema:
        for index in range(len(value)):
            yield from sites(value, index, schema["items"])


Maker = Callable[[random.Random, Any, Json], Any]


def _constants(*values: Any) -> list[Maker]:
    return [lambda rng, given, schema, value=value: value for value in values]


_ANYTHING = _constants(
    None, True, False, [], {}, "", "1", "null", 0, -1, 1, 1.0, 1.5, -0.0, 2**31, 2**53, 2**63 - 1, 2**63, 10**30, -(2**63),
    1e300, 9007199254740994.0, 1e6 + 1e-3, [None], [[]], {"x": 1}, {"": {}}, float("inf"), float("nan"),
)  # fmt: skip


def _at_a_limit(rng: random.Random, given: Any, schema: Json) -> Any:
    limit = rng.choice((schema.get("minimum", 0), schema.get("maximum", 2**63 - 1)))
    beside = rng.choice((0, 1, -1, 0.5, -0.5, 1e-3, -1e-3, 1e-7, -1e-7, 0.0))
    return limit + beside


def _nearly_whole(rng: random.Random, given: Any, schema: Json) -> Any:
    """Either side of the part in 10^9 by which go-openapi tells an integer."""
    return (
        given * (1 + rng.choice((1e-8, 3e-9, 1e-9, 5e-10, 1e-12))) if isinstance(given, int | float) else 1.0000000001
    )


def _as_text(rng: random.Random, given: Any, schema: Json) -> Any:
    return str(given)


def _long(rng: random.Random, given: Any, schema: Json) -> Any:
    """At, below and above the longest, in letters of one to four bytes: code points count."""
    most = schema.get("maxLength", 64) + rng.choice((-1, 0, 1))
    return rng.choice(("a", "1", "é", "漢", "🙂", "e\u0301")) * most


def _edited(rng: random.Random, given: Any, schema: Json) -> Any:
    text = str(given)
    at = rng.randint(0, len(text))
    odd = rng.choice(("\n", "\r\n", " ", "\t", "\0", "\u00a0", "\u2028", "\u202e", "\ufeff", "é", "İ", "/", ".", "..", "-", "_", "A", "0", "'", '"', "$(X)", "{{x}}", ";", "\\", "%00", ":", "@"))  # fmt: skip
    return rng.choice((text[:at] + odd + text[at:], text + odd, odd + text, text[:at] + text[at + 1 :], text[:-1]))


def _other_case(rng: random.Random, given: Any, schema: Json) -> Any:
    text = str(given)
    return rng.choice(
        (text.upper(), text.lower(), text.title(), unicodedata.normalize("NFD", text), text.replace("a", "а"))
    )


def _unknown_field(rng: random.Random, given: Any, schema: Json) -> Any:
    names = [
        "colour",
        "max_batch_size",
        "maxbatchsize",
        "Tier",
        "",
        *(name.upper() for name in schema.get("properties", ())),
    ]
    return {**given, rng.choice(names): rng.choice((None, 1, {}))} if isinstance(given, dict) else {"colour": 1}


def _without_a_field(rng: random.Random, given: Any, schema: Json) -> Any:
    if not isinstance(given, dict) or not given:
        return {}
    gone = rng.choice(list(given))
    return {name: value for name, value in given.items() if name != gone}


def _odd_key(rng: random.Random, given: Any, schema: Json) -> Any:
    key = rng.choice(("", "a/b/c", "a" * 63, "a" * 64, "a" * 189 + "/" + "b" * 63, "a/" + "b" * 64, "é", "a\n", "A/b", "a./b", "-a", "a b", "\0"))  # fmt: skip
    return {**given, key: "x"} if isinstance(given, dict) else {key: "x"}


def _null_value(rng: random.Random, given: Any, schema: Json) -> Any:
    return {**given, "a/b": None} if isinstance(given, dict) else {"a": None}


def _many(rng: random.Random, given: Any, schema: Json) -> Any:
    """At and above the most; copies of what is there, so that lists with keys see doubles."""
    most = schema.get("maxItems", schema.get("maxProperties", 8)) + rng.choice((0, 1))
    if schema["type"] == "object":
        return {f"k{i}": "v" for i in range(most)}
    return (list(given) or ["a"]) * most if isinstance(given, list) else [given] * most


def _doubled(rng: random.Random, given: Any, schema: Json) -> Any:
    return [*given, *given[:1]] if isinstance(given, list) else [given, given]


_BY_TYPE: dict[str, list[Maker]] = {
    "integer": [_at_a_limit, _nearly_whole, _as_text],
    "number": [_at_a_limit, _nearly_whole, _as_text],
    "string": [_long, _edited, _edited, _other_case],
    "boolean": [_as_text, *_constants("true", "yes", "on", 0, 1, 0.0)],
    "object": [_unknown_field, _without_a_field, _odd_key, _null_value, _many],
    "array": [_many, _doubled, *_constants([None])],
}
