"""Series, matchers and texts of a rule: the only place where a cluster's names enter PromQL or a template.

The API server guarantees that names are DNS labels. They are quoted anyway, so that no caller depends on that.
"""

import json
import re
from typing import Final

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False)


def format_series(metric: str, **labels: str | tuple[str, ...]) -> str:
    """Return `metric{label="value",...}`. A tuple matches any of its values."""
    return f"{metric}{{{','.join(_format_matcher(label, value) for label, value in labels.items())}}}"


def _format_matcher(label: str, value: str | tuple[str, ...]) -> str:
    if isinstance(value, str):
        return f"{label}={quote(value)}"
    return f"{label}=~{quote('|'.join(map(re.escape, value)))}"


def quote(value: str) -> str:
    """Return a string literal of PromQL. It has Go's escapes, which include JSON's except surrogate pairs."""
    return _ENCODER.encode(value)


def escape_template(text: str) -> str:
    """Return text for a rule's annotation or label, which are Go templates, without template actions."""
    return text.replace("{{", '{{"{{"}}')
