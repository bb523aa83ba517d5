"""What the environment says of newer images: read whole, or refused with variable and chart value."""

import pytest

from r1plus_operator.config import OperatorConfigError, load_settings
from r1plus_operator.plan.settings import RuntimeUpdate

DIGEST = f"sha256:{'a' * 64}"


def test_by_default_nothing_is_refreshed_by_itself(least: dict[str, str]) -> None:
    config = load_settings(least).operator
    assert (config.runtime_update, config.max_concurrent, config.vulnerable_images) == (
        RuntimeUpdate.MANUAL,
        2,
        frozenset(),
    )


def test_the_settings_of_updates_are_read(least: dict[str, str]) -> None:
    said = {
        "R1PLUS_RUNTIME_UPDATE": "Automatic",
        "R1PLUS_MAX_CONCURRENT": "7",
        "R1PLUS_VULNERABLE_IMAGES": f"registry.local/triton:1,{DIGEST}",
    }
    config = load_settings({**least, **said}).operator
    assert (config.runtime_update, config.max_concurrent) == (RuntimeUpdate.AUTOMATIC, 7)
    for image in ("registry.local/triton:1", f"registry.local/other@{DIGEST}", f"mirror.local/other:1@{DIGEST}"):
        assert config.is_vulnerable(image)
    assert not config.is_vulnerable("registry.local/triton:11")


def test_an_unknown_update_mode_is_refused_with_its_chart_value(least: dict[str, str]) -> None:
    with pytest.raises(OperatorConfigError, match=r"R1PLUS_RUNTIME_UPDATE: 'Sometimes'.*runtime\.update"):
        load_settings({**least, "R1PLUS_RUNTIME_UPDATE": "Sometimes"})
