"""Signed statements about the artifacts of a release: Sigstore bundles as referrers, as cosign writes them."""

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from r1plus_cli.bundle.oci import Descriptor
from r1plus_cli.bundle.release import SIGNATURE_PREDICATE, build_statement
from r1plus_model_repo.engine_fetch.sigstore import BUNDLE_TYPE, sign_statement
from release.layout_writer import LayoutWriter


def add_statement(
    layout: LayoutWriter,
    subject: Descriptor,
    key: ec.EllipticCurvePrivateKey,
    predicate_type: str = SIGNATURE_PREDICATE,
    predicate: dict[str, Any] | None = None,
) -> Descriptor:
    """Sign a statement about an artifact and store it as its referrer; by default the statement that it is signed."""
    bundle = sign_statement(build_statement(subject, predicate_type, predicate or {}), key)
    annotations = {
        "dev.sigstore.bundle.content": "dsse-envelope",
        "dev.sigstore.bundle.predicateType": predicate_type,
    }
    layer = layout.add_blob(bundle, BUNDLE_TYPE)
    entry = layout.add_manifest(layers=(layer,), artifact_type=BUNDLE_TYPE, subject=subject, annotations=annotations)
    layout.add_entry(entry)
    return entry
