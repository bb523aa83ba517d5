"""R1+'s options: which are in range, which layers have a window, what is written into config.json. No torch."""

import math
from typing import Any

import pytest

from r1plus_contract.engine.llama_architecture import (
    LlamaArchitecture,
    ModelError,
    read_architecture,
    read_shape,
    write_fields,
)
from support.tables import for_each

FIELDS: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
}


@for_each(
    "options, message",
    {
        "a window of nothing": ({"window": 0}, "window: 0 is not a whole number of at least 1"),
        "a window that is no whole number": ({"window": 1.5}, "window: 1.5 is not a whole number"),
        "a window that is true": ({"window": True}, "window: True is not a whole number"),
        "sinks below zero": ({"window": 8, "sinks": -1}, "sinks: -1 is not a whole number of at least 0"),
        "sinks of nothing": ({"window": 8, "sinks": None}, "sinks: None is not a whole number"),
        "sinks without a window": ({"sinks": 4}, "window: missing"),
        "a bias without a window": ({"relative_bias": True}, "window: missing"),
        "spans without a window": ({"span_ramp": 8}, "window: missing"),
        "global layers without others": ({"global_every": 6}, "window: missing"),
        "all layers global": ({"window": 8, "global_every": 1}, "global_every: 1 is not a whole number of at least 2"),
        "a ramp of nothing": ({"window": 8, "span_ramp": 0}, "span_ramp: 0 is not a whole number"),
        "a bias that is a word": ({"window": 8, "relative_bias": "yes"}, "relative_bias: 'yes' is not true or false"),
        "no neurons": ({"active": 0}, "active: 0 is not above 0 and at most 1"),
        "fewer neurons than none": ({"active": -0.15}, "active: -0.15 is not"),
        "more neurons than there are": ({"active": 1.01}, "active: 1.01 is not"),
        "a percentage": ({"active": 15}, "active: 15 is not above 0 and at most 1; 0.15"),
        "a share that is no number": ({"active": math.nan}, "active: nan is not"),
        "a share that is a text": ({"active": "0.15"}, "active: '0.15' is not"),
        "a predictor of all neurons": ({"predictor_rank": 8}, "predictor_rank: set, but all neurons are active"),
        "a predictor of nothing": ({"active": 0.5, "predictor_rank": 0}, "predictor_rank: 0 is not a whole number"),
    },
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as raised:
        LlamaArchitecture(**options)

    assert message in str(raised.value)
    assert "; " in str(raised.value), "it says what to do"


@for_each(
    "architecture, layers",
    {
        "no window": (LlamaArchitecture(), []),
        "every layer": (LlamaArchitecture(window=128), [0, 1, 2, 3, 4, 5, 6]),
        "all but every third": (LlamaArchitecture(window=128, global_every=3), [0, 1, 3, 4, 6]),
    },
)
def test_layers_with_a_window(architecture: LlamaArchitecture, layers: list[int]) -> None:
    assert [layer for layer in range(7) if architecture.has_window(layer)] == layers


@for_each(
    "active, count",
    {"all": (1, 1536), "15 %": (0.15, 230), "at least one": (1e-9, 1), "nearly all": (0.9999, 1535)},
)
def test_active_neurons_of_smollm2(active: float, count: int) -> None:
    assert LlamaArchitecture(active=active).count_active(1536) == count


def test_options_are_read_as_they_were_written() -> None:
    architecture = LlamaArchitecture(window=128, sinks=4, global_every=6, relative_bias=True, span_ramp=32, active=0.15)

    fields = write_fields(FIELDS, architecture)

    assert read_architecture(fields) == architecture
    assert read_shape(fields) == read_shape(FIELDS)
    assert read_architecture(write_fields(fields, LlamaArchitecture())) == LlamaArchitecture()


@for_each(
    "fields, theta",
    {
        "as transformers 4 writes it": ({"rope_theta": 500.0}, 500.0),
        "as transformers 5 writes it": (
            {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
            500.0,
        ),
        "as a word": ({"rope_scaling": "default", "rope_theta": 500.0}, 500.0),
        "as smollm2's own config.json has it": ({"rope_scaling": None, "rope_theta": 100000}, 100000.0),
    },
)
def test_the_base_of_the_positions(fields: dict[str, Any], theta: float) -> None:
    assert read_shape(FIELDS | fields).rope_theta == theta


@for_each(
    "fields, message",
    {
        "scaled": ({"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling: rope_type 'llama3' is not computed"),
        "scaled, in a text": ({"rope_scaling": "linear"}, "rope_scaling: rope_type 'linear' is not computed"),
        "scaled without a type": ({"rope_scaling": {"factor": 4.0}}, "rope_scaling: rope_type 'factor 4.0' is not"),
        "of a part of each head": (
            {"partial_rotary_factor": 0.5},
            "partial_rotary_factor: 0.5: positions turn all numbers of a head here; use another model",
        ),
        "of a part of each head, as transformers 5 writes it": (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            "rope_parameters: partial_rotary_factor: 0.5: positions turn",
        ),
        "of no base": ({"rope_theta": None}, "rope_theta: None is not a positive number"),
        "of a base without end": ({"rope_theta": 10**400}, "rope_theta: 1000"),
    },
)
def test_positions_that_are_not_computed_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as raised:
        read_shape(FIELDS | fields)

    assert message in str(raised.value)


@for_each(
    "types, message",
    {
        "windows in half of them": (
            ["sliding_attention", "full_attention"],
            "layer_types: ['sliding_attention', 'full_attention']: only full_attention is computed here; use another",
        ),
        "a number": (3, "layer_types: 3: only full_attention"),
    },
)
def test_layers_that_would_be_computed_as_others_are_refused(types: object, message: str) -> None:
    assert read_shape(FIELDS | {"layer_types": ["full_attention"] * 30}) == read_shape(FIELDS)

    with pytest.raises(ModelError) as raised:
        read_shape(FIELDS | {"layer_types": types})

    assert message in str(raised.value)
