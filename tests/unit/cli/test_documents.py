"""What `-f` takes, and what it says of a file that it cannot."""

from pathlib import Path

import pytest

from r1plus_cli.documents import Document, read_documents
from r1plus_cli.errors import UsageError
from r1plus_contract.names import KIND_DEPLOYMENT

CR = "apiVersion: r1plus.ai/v1alpha1\nkind: R1PlusDeployment\nmetadata: {name: credit}\nspec: {tier: full}\n"
NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team-credit}\n"


def read(path: str) -> list[Document]:
    return read_documents(path, KIND_DEPLOYMENT)[KIND_DEPLOYMENT]


def test_deployments_are_found_among_other_kinds(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(f"{NAMESPACE}---\n---\n{CR}---\n{CR.replace('credit', 'other')}")
    found = read(str(file))
    assert [(d.namespace, d.name) for d in found] == [("default", "credit"), ("default", "other")]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(CR.replace("credit", "second"))
    (tmp_path / "a.yaml").write_text(CR.replace("credit", "first"))
    assert [d.name for d in read(str(tmp_path))] == ["first", "second"]


REFUSALS = {
    "a file that is not there": (None, "cannot be read"),
    "text that is not YAML": ("a: [1", "not YAML"),
    "other kinds only": (NAMESPACE, "has no R1PlusDeployment"),
    "the kind of another group": (CR.replace("r1plus.ai", "example.com"), "has no R1PlusDeployment"),
    "an empty file": ("", "has no R1PlusDeployment"),
}


@pytest.mark.parametrize(("text", "expected"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refused(text: str | None, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "cr.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=expected):
        read(str(file))
