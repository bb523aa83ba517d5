"""A tenant's golden suite on its way to a condition: checked, its signature verified, trusted or not, and in words."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from r1plus_contract.suites.suite import SuiteError
from r1plus_contract.suites.suite_files import SIGNATURE_FILE, SuiteFiles, key_id
from r1plus_contract.verdict import Phase, Verdict
from r1plus_operator.config import OperatorConfigError, load_settings, load_shipped_suites, read_suite_folder
from r1plus_operator.observe import suite_projection
from r1plus_operator.observe.suite_signature import KeyPair, find_signer, generate_key, read_key, sign
from r1plus_operator.pins import SHIPPED_SUITES
from r1plus_operator.plan.settings import SuiteTrust
from support.golden_suites import BAD, NAME, baseline_of, files_of, with_item
from support.plan.world import CONFIG, ROOT, World

OURS, FOREIGN = generate_key(), generate_key()
STRICT = replace(CONFIG, suite_trust=SuiteTrust(keys=frozenset({OURS.public})))


def told(files: SuiteFiles, config: Any = STRICT, **accuracy: Any) -> tuple[str, str, str]:
    """QualityVerified of a deployment that asks for these files, in a ConfigMap of its namespace."""
    meta = {"name": NAME, "namespace": "team", "uid": "u"}
    source = suite_projection.read_suite({"metadata": meta, "data": files.texts()})
    world = World({"tier": "full", "accuracy": {"suite": NAME, **accuracy}}, config=config)
    world.suites[NAME] = source
    world.settle()
    return world.condition("QualityVerified")


TAKEN = ("Unknown", "NotYetKnown")


@pytest.mark.parametrize(("make", "words"), BAD.values(), ids=BAD)
def test_a_bad_suite_is_a_condition_in_words_of_its_own_though_it_is_signed(
    make: Callable[[], SuiteFiles], words: str
) -> None:
    status, reason, message = told(sign(make(), OURS))
    assert (status, reason) == ("False", "SuiteHashMismatch" if words == "sha256 is" else "SuiteInvalid")
    assert words in message
    assert message.startswith(f"spec.accuracy.suite: {NAME}: ")


def test_a_suite_signed_by_a_trusted_key_is_taken() -> None:
    assert told(sign(files_of(), OURS))[:2] == TAKEN


def test_an_unsigned_suite_is_refused_with_the_remedy() -> None:
    status, reason, message = told(files_of())
    assert (status, reason) == ("False", "SuiteInvalid")
    assert f"{NAME}: not signed; sign it with a trusted key (r1plus suite sign)" in message
    assert "spec.accuracy.suiteKeys" in message


def test_a_suite_signed_by_another_key_is_refused_and_both_keys_are_named() -> None:
    status, reason, message = told(sign(files_of(), FOREIGN))
    assert (status, reason) == ("False", "SuiteInvalid")
    assert (
        f"signed by key {key_id(FOREIGN.public)}, which is not trusted (trusted keys: {key_id(OURS.public)})" in message
    )


def test_a_deployment_may_trust_a_key_of_its_own_and_another_deployment_does_not() -> None:
    signed = sign(files_of(), FOREIGN)
    assert told(signed, suiteKeys=[FOREIGN.public])[:2] == TAKEN
    assert told(signed, suiteKeys=[generate_key().public])[:2] == ("False", "SuiteInvalid")


def test_without_required_signatures_an_unsigned_suite_and_a_foreign_one_are_taken() -> None:
    loose = replace(CONFIG, suite_trust=SuiteTrust(required=False))
    assert told(files_of(), loose)[:2] == TAKEN
    assert told(sign(files_of(), FOREIGN), loose)[:2] == TAKEN


@pytest.mark.parametrize("config", [STRICT, CONFIG], ids=["signatures required", "not required"])
def test_a_suite_altered_after_it_was_signed_is_refused_whoever_is_trusted(config: Any) -> None:
    """The header is made anew, so that its hash fits: only the signature tells."""
    forged = replace(with_item(prompt="easier?"), signature=sign(files_of(), OURS).signature)
    status, reason, message = told(forged, config)
    assert (status, reason) == ("False", "SuiteInvalid")
    assert f"suite.sig: the signature by key {key_id(OURS.public)} does not fit" in message


def test_a_suite_that_bears_another_name_cannot_stand_in_for_the_one_asked_for() -> None:
    status, reason, message = told(sign(files_of(name="easy-v1"), OURS))
    assert (status, reason) == ("False", "SuiteInvalid")
    assert f"suite.json: name: easy-v1 is not {NAME}" in message


def test_many_problems_are_told_as_far_as_a_condition_can() -> None:
    lines = "".join(f'{{"id":"{n}"}}\n' for n in range(9))
    message = told(files_of(text=lines))[2]
    assert "items.jsonl:4: Item.stratum: missing" in message
    assert message.count("Item.stratum: missing") == 5
    assert "and 5 more: `r1plus suite verify FOLDER` lists all" in message


# -- Threshold ---------------------------------------------------------------------------------------------------------

HALF = (
    ("batch 16", "loans", 1, 4),
    ("batch 16", "savings", 0, 4),
    ("batch 1", "loans", 1, 4),
    ("batch 1", "savings", 1, 4),
)


def test_a_threshold_that_the_reference_did_not_reach_is_refused_with_both_figures() -> None:
    status, reason, message = told(sign(baseline_of(files_of(), *HALF), OURS), threshold=0.9)
    assert (status, reason) == ("False", "ThresholdUnreachable")
    assert "spec.accuracy.threshold: 0.9 allows 0 of 8 items to be lost" in message
    assert "bank-f16 itself lost 2 of them: it reached 6 of 8 = 0.7500" in message
    assert "(batch 1); lower the threshold to 0.75 or less" in message


def test_the_threshold_that_is_named_is_taken() -> None:
    assert told(sign(baseline_of(files_of(), *HALF), OURS), threshold=0.75)[:2] == TAKEN


def test_without_a_baseline_no_threshold_is_refused_beforehand() -> None:
    assert told(sign(files_of(), OURS), threshold=1.0)[:2] == TAKEN


# -- What the monitor is given -----------------------------------------------------------------------------------------


def test_the_monitor_is_given_the_reference_and_its_hash() -> None:
    line = '{"answer":"answer 0","finishReason":"stop","item":"loans-0","score":"correct"}\n'
    kept = suite_projection.read_suite_source(NAME, sign(replace(files_of(), reference=line), OURS))
    world = World({"tier": "full", "accuracy": {"suite": NAME}}, config=STRICT)
    world.suites[NAME] = kept
    world.settle()
    data = world.one("ConfigMap", "credit-accuracy")["data"]
    assert data["reference.jsonl"] == line
    assert len(json.loads(data["settings.json"])["referenceHash"]) == 64
    world.suites[NAME] = suite_projection.read_suite_source(NAME, sign(files_of(), OURS))
    world.settle()
    data = world.one("ConfigMap", "credit-accuracy")["data"]
    assert "reference.jsonl" not in data
    assert json.loads(data["settings.json"])["referenceHash"] == ""


def test_a_monitor_that_can_no_longer_score_is_no_data_though_a_pass_stands_and_no_traffic_moves() -> None:
    world = World({"tier": "full"})
    name = world.bring_up()
    assert world.condition("QualityVerified")[:2] == ("True", "GatePassed")
    for pod, report in world.reports.items():
        world.reports[pod] = replace(
            report,
            phase=Phase.BLOCKED,
            verdict=Verdict.NO_DATA,
            reason="SuiteMismatch",
            message="scores differ",
            gate=None,
        )
    world.settle()
    status, reason, message = world.condition("QualityVerified")
    assert (status, reason) == ("False", "SuiteMismatch")
    assert "scores differ" in message
    assert world.status["verdict"] == "NoData"
    assert (world.selected(), world.condition("Ready")[0]) == (name, "True")


# -- Shipped suites ----------------------------------------------------------------------------------------------------


def test_shipped_suites_are_trusted_by_what_they_are_and_no_others() -> None:
    shipped = load_shipped_suites(ROOT / "monitoring" / "suites")
    assert {name: source.digest for name, source in shipped.items()} == dict(SHIPPED_SUITES)
    strict = replace(CONFIG, suite_trust=SuiteTrust(shipped_digests=frozenset(SHIPPED_SUITES.values())))
    world = World({"tier": "full"}, config=strict, suites=shipped)
    world.settle()
    assert world.condition("QualityVerified")[:2] == TAKEN
    world = World({"tier": "full"}, config=replace(CONFIG, suite_trust=SuiteTrust()), suites=shipped)
    world.settle()
    assert world.condition("QualityVerified")[:2] == ("False", "SuiteInvalid")


def test_a_shipped_suite_whose_baseline_was_touched_is_a_strangers(tmp_path: Path) -> None:
    files = read_suite_folder(ROOT / "monitoring" / "suites" / "smollm2-full-v1")
    touched = suite_projection.read_suite_source("smollm2-full-v1", replace(files, baseline=files.baseline + " "))
    assert touched.suite is not None
    assert touched.digest not in SHIPPED_SUITES.values()


def test_of_a_file_that_is_too_large_no_more_is_read_than_shows_it(tmp_path: Path) -> None:
    (tmp_path / "suite.json").write_text("{}")
    (tmp_path / "items.jsonl").write_bytes(b"x" * 10_000_000)
    files = read_suite_folder(tmp_path)
    assert len(files.items) == 921_601
    assert "921601 bytes, at most 921600" in suite_projection.read_suite_source("s", files).problem


# -- Settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "required"),
    [
        ({}, True),
        ({"R1PLUS_SUITES_REQUIRE_SIGNATURE": "no"}, True),
        ({"R1PLUS_SUITES_REQUIRE_SIGNATURE": "false"}, False),
    ],
    ids=["by default", "a misspelt value", "false"],
)
def test_signatures_are_required_unless_they_are_plainly_not(
    least: dict[str, str], given: dict[str, str], required: bool
) -> None:
    trust = load_settings(least | given).operator.suite_trust
    assert (trust.required, trust.shipped_digests) == (required, frozenset(SHIPPED_SUITES.values()))


def test_trusted_keys_come_from_the_chart_and_one_that_is_none_is_refused(least: dict[str, str]) -> None:
    keys = f"{OURS.public},{FOREIGN.public}"
    assert load_settings(least | {"R1PLUS_SUITE_KEYS": keys}).operator.suite_trust.keys == set(keys.split(","))
    with pytest.raises(OperatorConfigError, match="R1PLUS_SUITE_KEYS: 'AAAA' is no Ed25519 public key"):
        load_settings(least | {"R1PLUS_SUITE_KEYS": f"{OURS.public},AAAA"})


# -- Signatures --------------------------------------------------------------------------------------------------------


def test_who_signed_is_told_and_an_unsigned_suite_has_nobody() -> None:
    assert find_signer(sign(files_of(), OURS)) == OURS.public
    assert find_signer(sign(sign(files_of(), OURS), FOREIGN)) == FOREIGN.public
    assert find_signer(files_of()) == ""


def test_a_signature_under_another_public_key_does_not_fit() -> None:
    signed = sign(files_of(), OURS)
    with pytest.raises(SuiteError, match="does not fit"):
        find_signer(replace(signed, signature=signed.signature.replace(OURS.public, FOREIGN.public)))


def test_a_key_reads_back_and_its_file_holds_no_public_one() -> None:
    again = read_key(OURS.encode_pem())
    assert again.public == OURS.public
    assert find_signer(sign(files_of(), again)) == OURS.public


def encrypted(key: KeyPair) -> bytes:
    return key.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )


def test_an_encrypted_key_needs_its_passphrase() -> None:
    assert read_key(encrypted(OURS), b"secret").public == OURS.public
    for passphrase in (None, b"wrong"):
        with pytest.raises(ValueError, match="not a private key in PEM"):
            read_key(encrypted(OURS), passphrase)


def test_a_key_of_another_kind_is_refused_by_name() -> None:
    pem = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(ValueError, match="not an Ed25519 key but ECPrivateKey"):
        read_key(pem)
    with pytest.raises(ValueError, match="not a private key in PEM"):
        read_key(b"nothing")


def test_a_signature_is_found_where_a_folder_keeps_it(tmp_path: Path) -> None:
    for name, text in sign(files_of(), OURS).texts().items():
        (tmp_path / name).write_text(text)
    assert (tmp_path / SIGNATURE_FILE).exists()
    assert find_signer(read_suite_folder(tmp_path)) == OURS.public
