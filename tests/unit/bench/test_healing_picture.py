"""What the picture of `make bench NAME=model PART=healing` is drawn from."""

from typing import Any

import pytest

from bench.model.picture import draw, join

DENSE = {"perplexity": 19.5, "right": 211, "items": 211}


def describe(*points: tuple[int, int, float]) -> dict[str, Any]:
    """Return a healed model with these steps, right items and perplexities."""
    curve = [{"step": step, "right": right, "perplexity": perplexity} for step, right, perplexity in points]
    return {"steps": points[-1][0], "curve": curve}


def test_the_picture_has_a_line_of_each_model_and_the_dense_one() -> None:
    run = {"dense": DENSE, "healed": {"r1plus": describe((0, 0, 2267.0), (81, 83, 49.7))}}
    right, perplexity = draw(run).axes
    assert [line.get_label() for line in right.lines] == ["r1plus", "dense"]
    assert [list(line.get_ydata()) for line in right.lines] == [[0, 83], [211, 211]]
    assert list(right.lines[0].get_xdata()) == [0, 81]
    assert [list(line.get_ydata()) for line in perplexity.lines] == [[2267.0, 49.7], [19.5, 19.5]]


def test_models_of_several_runs_make_one_picture_and_the_newest_run_of_a_model_counts() -> None:
    old, new, other = (describe((0, 0, 2267.0), (steps, 1, 50.0)) for steps in (80, 1200, 1200))
    first, second = {"r1plus": old}, {"r1plus": new, "r1plus-no-bias": other}
    joined = join([{"dense": DENSE, "healed": first}, {"dense": DENSE, "healed": second}])
    assert joined == {"dense": DENSE, "healed": {"r1plus": new, "r1plus-no-bias": other}}


def test_suites_of_different_sizes_are_not_drawn_as_one() -> None:
    with pytest.raises(ValueError, match="suites with 24 and 211 items"):
        join([{"dense": DENSE, "healed": {}}, {"dense": DENSE | {"items": 24}, "healed": {}}])
