"""The limit of open files: raised at the start, and connections are bounded below it."""

import resource

import pytest

from r1plus_gateway import descriptors
from r1plus_gateway.descriptors import RESERVED_DESCRIPTORS, DescriptorLimitError, raise_descriptor_limit
from r1plus_gateway.http.connections import MOST_CONNECTIONS


@pytest.mark.parametrize(("hard", "fitting"), [(20_000, MOST_CONNECTIONS), (1024, 1024 - RESERVED_DESCRIPTORS)])
def test_connections_fit_below_the_raised_limit(hard: int, fitting: int, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    monkeypatch.setattr(descriptors.resource, "getrlimit", lambda kind: (512, hard))
    monkeypatch.setattr(descriptors.resource, "setrlimit", lambda kind, limit: limits.append((kind, limit)))
    assert raise_descriptor_limit() == fitting
    assert limits == [(resource.RLIMIT_NOFILE, (hard, hard))]


def test_a_limit_that_leaves_no_connection_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hard = RESERVED_DESCRIPTORS + 1
    monkeypatch.setattr(descriptors.resource, "getrlimit", lambda kind: (hard, hard))
    with pytest.raises(DescriptorLimitError, match="Raise the hard limit"):
        raise_descriptor_limit()
