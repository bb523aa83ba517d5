"""A tenant's own golden suite through the real API server: refused in words, taken once it is signed, and followed."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import yaml

from r1plus_cli.suite.storage import render_manifest
from r1plus_contract.suites.suite_files import SuiteFiles
from r1plus_contract.verdict import Shadow, Verdict, Watch, WatchStanding
from r1plus_operator.api import kinds
from r1plus_operator.observe.suite_signature import generate_key, sign
from r1plus_operator.plan.revision.storage import read_revision
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.tenant import Tenant
from support.golden_suites import BAD, ITEMS, NAME, baseline_of, files_of, with_item

pytestmark = pytest.mark.apiserver
OURS, FOREIGN = generate_key(), generate_key()
HALF = (("batch 1", "loans", 2, 4), ("batch 1", "savings", 0, 4))
REFUSED: dict[str, tuple[Callable[[], SuiteFiles], str, str]] = {
    "unsigned": (files_of, "SuiteInvalid", "not signed; sign it with a trusted key"),
    "signed by another key": (lambda: sign(files_of(), FOREIGN), "SuiteInvalid", "which is not trusted"),
    "altered after signing": (
        lambda: replace(with_item(prompt="easier?"), signature=sign(files_of(), OURS).signature),
        "SuiteInvalid",
        "does not fit: a file was altered after it was signed",
    ),
    **{
        name: (
            lambda make=make: sign(make(), OURS),
            "SuiteHashMismatch" if name == "altered" else "SuiteInvalid",
            words,
        )
        for name, (make, words) in BAD.items()
        if name not in ("10 MB", "nothing at all")
    },
    "a threshold that its reference misses": (
        lambda: sign(baseline_of(files_of(), *HALF), OURS),
        "ThresholdUnreachable",
        "reached 6 of 8 = 0.7500",
    ),
}


async def put(tenant: Tenant, files: SuiteFiles) -> None:
    """`kubectl apply -f` of what `r1plus suite sign --configmap` writes."""
    body = yaml.safe_load(render_manifest(files, tenant.namespace))
    await tenant.client.apply(kinds.CONFIG_MAP, body, field_manager="tenant")


async def test_each_bad_suite_is_told_in_words_and_the_mended_one_is_taken(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    accuracy = {"suite": NAME, "suiteKeys": [OURS.public]}
    await tenant.deploy("credit", tier="full", accuracy=accuracy)
    for make, reason, words in REFUSED.values():
        await put(tenant, sign(files_of(), OURS))
        await tenant.until("credit", "QualityVerified", "Unknown", "NotYetKnown")
        await put(tenant, make())
        assert words in await tenant.until("credit", "QualityVerified", "False", reason)


async def test_another_deployments_key_vouches_for_nothing(operator: OperatorProcess, tenant: Tenant) -> None:
    await put(tenant, sign(files_of(), OURS))
    await tenant.deploy("theirs", tier="full", accuracy={"suite": NAME, "suiteKeys": [OURS.public]})
    await tenant.deploy("mine", tier="full", accuracy={"suite": NAME})
    await tenant.until("theirs", "QualityVerified", "Unknown", "NotYetKnown")
    assert "(trusted keys: none)" in await tenant.until("mine", "QualityVerified", "False", "SuiteInvalid")


async def test_a_new_version_is_asked_beside_the_former_one_and_counts_once_its_gate_is_decided(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    await put(tenant, sign(files_of(), OURS))
    accuracy = {"suite": NAME, "suiteKeys": [OURS.public]}
    await tenant.deploy("credit", tier="full", accuracy=accuracy)
    serving = await tenant.bring_up("credit")
    before = tenant.monitors.report
    assert before is not None

    await put(tenant, sign(files_of((replace(ITEMS[0], prompt="easier?"), *ITEMS[1:]), name="bank-v2"), OURS))
    await tenant.deploy("credit", tier="full", accuracy=accuracy | {"suite": "bank-v2"})
    message = await tenant.until("credit", "QualityVerified", "Unknown", "SuiteShadowed")
    assert f"By suite {NAME}: Pass" in message
    # The status is written first.
    both = "the monitors have both suites"
    await tenant.child_that("ConfigMap", "credit-accuracy", lambda obj: "former-items.jsonl" in obj["data"], both)
    settings = await tenant.settings("credit")
    assert (settings["suite"], settings["former"]["suite"]) == ("bank-v2", NAME)
    assert settings["former"]["suiteHash"] == before.suite_hash
    mounted = (await tenant.present("ConfigMap", "credit-accuracy"))["data"]
    assert mounted["former-items.jsonl"] == files_of().items

    gate = replace(await tenant.decide(serving, Verdict.PASS), batch=1)
    shadow = Shadow("bank-v2", settings["suiteHash"], 100, gate, ran_under=await tenant.config_digest("credit"))
    watch = Watch(WatchStanding.STEADY, len(ITEMS))
    tenant.monitors.report = replace(before, watch=watch, shadow=shadow, sequence=before.sequence + 1)
    await tenant.until("credit", "QualityVerified", "True", "GatePassed")
    one = "the monitors have the new suite alone"
    await tenant.child_that("ConfigMap", "credit-accuracy", lambda obj: "former-items.jsonl" not in obj["data"], one)
    assert (await tenant.settings("credit")).get("former") is None
    await tenant.child_that(
        "ControllerRevision",
        serving,
        lambda obj: [v.suite_hash for v in read_revision(obj).verdicts] == [before.suite_hash, settings["suiteHash"]],
        "it has the verdicts on both suites",
    )
    assert (await tenant.condition("credit", "Ready"))[0] == "True"
