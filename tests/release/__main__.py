"""`make release`: writes a release's bundle, its lock and its public key into a folder, and verifies the bundle.

The same commit and key make the same bytes. Signing is by a key in a file; without one, a key for a trial is made.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from devcluster import binaries
from devcluster.cache import log_dir
from devcluster.images.sources import ROOT
from devcluster.shell import CommandError
from devcluster.steps import Steps
from r1plus_cli.bundle.verification import open_release
from r1plus_edge.errors import EdgeError
from r1plus_model_repo.engine_fetch.sigstore import encode_public_key, load_private_key
from release.bundle import ReleaseWriter
from release.predicates import Source, read_source

TRIAL_KEY = "trial-signing-key.pem"
PROGRAMS = ("helm", "syft")


def main(arguments: Sequence[str]) -> int:
    """Parse the words after the program's name and write the release; returns the exit status."""
    parser = argparse.ArgumentParser(prog="release", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--key", type=Path, help="private key to sign with (PEM, P-256); default: one for a trial")
    parser.add_argument("--dirty", action="store_true", help="allow changes that are not committed")
    options = parser.parse_args(arguments)
    source = read_source(ROOT)
    if source.is_dirty and not options.dirty:
        print("The work tree has changes, and a release names the commit that it is made of. Commit them,")
        print("or make a release for a trial with DIRTY=1.")
        return 2
    try:
        return _write(options.out, options.key, source)
    except (CommandError, EdgeError, ValueError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1


def _write(out: Path, key_file: Path | None, source: Source) -> int:
    out.mkdir(parents=True, exist_ok=True)
    key = load_private_key(key_file or _make_trial_key(out))
    public_key = encode_public_key(key.public_key())
    steps = Steps(len(PROGRAMS) + ReleaseWriter.STEPS + 1)
    binaries.build(steps, PROGRAMS)
    writer = ReleaseWriter(key, source)
    bundle = writer.write(out, steps)
    (out / "release.pub").write_text(public_key)
    with steps.step("verification", log=log_dir() / "release.log"), open_release(bundle, [public_key]) as release:
        (out / "images.lock").write_text(release.lock.model_dump_json(indent=2) + "\n")
        digest = release.lock_manifest.digest
    figures = {"version": writer.version, "commit": source.commit, "lock": digest, "bytes": bundle.stat().st_size}
    print(f"{bundle}: verified. A user verifies it with {out / 'release.pub'}")
    print(json.dumps(figures))
    return 0


def _make_trial_key(out: Path) -> Path:
    """Return the key that signs a release for a trial, the same each time."""
    file = out / TRIAL_KEY
    if not file.exists():
        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.touch(mode=0o600)
        file.write_bytes(pem)
    print(f"Signing with {file}, a key for trials. A release that others install is signed with KEY=FILE.")
    return file


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
