"""Presets: named sampling values. Each is another operating point than the one that the gate measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from r1plus_gateway.http.errors import InvalidFieldError, RequestError

SEPARATOR: Final = ":"


@dataclass(frozen=True, slots=True)
class Preset:
    """Values that hold where the request sets none. None: the model's default."""

    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None


PRESETS: Final[Mapping[str, Preset]] = {
    # At temperature 0 `top_p` has no effect. Of the temperatures in `make bench NAME=presets`, 0.1 is the highest that
    # loses no more of smollm2's golden suite than its gate allows.
    "code": Preset(temperature=0.1, top_p=0.92),
    "creative": Preset(repetition_penalty=1.2),
    # Greedy, and with `math_mode` (`math_fields`).
    "math": Preset(temperature=0.0),
}
NO_PRESET: Final = Preset()


def split_model(model: str, preset: str) -> tuple[str, str]:
    """Return the deployment and the preset of a model id such as `credit:code` and of the field `preset`.

    Raises:
        RequestError: they contradict each other, or the model id names no preset.
    """
    name, separator, suffix = model.partition(SEPARATOR)
    if separator and suffix not in PRESETS:
        raise build_unknown_model_error(model)
    if suffix and preset and suffix != preset:
        raise InvalidFieldError("preset", f"{preset} contradicts the model {model}; leave one of them out")
    return name, suffix or preset


def build_unknown_model_error(model: str) -> RequestError:
    """Return the one answer for models that do not exist and for those that this caller may not call."""
    message = f"the model {model!r:.100} does not exist, or you may not call it; GET /v1/models lists yours"
    return RequestError(404, "model_not_found", message, param="model")
