"""What the operator's environment says at the least."""

import pytest


@pytest.fixture(scope="session")
def least(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables without which it does not start; catalog and suites are an empty folder."""
    empty = str(tmp_path_factory.mktemp("empty"))
    images = {"R1PLUS_MONITOR_IMAGE": "m", "R1PLUS_TRITON_IMAGE": "t"}
    folders = {"R1PLUS_CATALOG_DIR": empty, "R1PLUS_SUITES_DIR": empty}
    return {**images, **folders, "R1PLUS_OPERATOR_NAMESPACE": "n"}
