"""Operating points: the sampling that the gate measures, that of a preset for which a suite has run, or any other."""

from enum import StrEnum

from r1plus_gateway.http.completions import math_fields
from r1plus_gateway.http.completions.presets import PRESETS, Preset
from r1plus_gateway.http.completions.requests import GenerateRequest
from r1plus_gateway.serving.triton_wire import Sampling
from r1plus_gateway.settings import ModelSettings


class OperatingPoint(StrEnum):
    """Who has measured answers of such requests."""

    GATED = "gated"
    MEASURED = "measured"
    """A suite that has run for the preset."""
    UNMEASURED = "unmeasured"


def find_operating_point(request: GenerateRequest, model: ModelSettings) -> OperatingPoint:
    """Return the operating point of a request, by its sampling and by whether its question is calculated."""
    values = _list_values(request.sampling)
    if request.math is None and values == _list_values(Sampling()):
        return OperatingPoint.GATED
    preset = math_fields.PRESET if request.math is not None else request.model.preset
    is_preset = preset in PRESETS and values == _list_values(PRESETS[preset])
    return classify_preset(preset, model) if is_preset else OperatingPoint.UNMEASURED


def classify_preset(preset: str, model: ModelSettings) -> OperatingPoint:
    """Return the operating point of a preset."""
    return OperatingPoint.MEASURED if preset in model.measured_presets else OperatingPoint.UNMEASURED


def _list_values(values: Sampling | Preset) -> tuple[float | None, ...]:
    """Return what decides on the next token; the default temperature is 0, where `top_p` has no effect."""
    if not values.temperature:
        return None, None, values.repetition_penalty
    return values.temperature, values.top_p, values.repetition_penalty
