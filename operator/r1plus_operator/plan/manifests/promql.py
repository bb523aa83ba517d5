"""Series, matchers and texts of a rule: the one place where a name of the cluster enters PromQL or a template.

Names are DNS labels, and the API server holds them to it. Quoting them all the same costs nothing and asks nobody to
remember who checked what.
"""

import json
import re


def series(metric: str, **labels: str | tuple[str, ...]) -> str:
    """`metric{label="value",...}`; a tuple is any one of its values."""
    return f"{metric}{{{','.join(_matcher(label, value) for label, value in labels.items())}}}"


def _matcher(label: str, value: str | tuple[str, ...]) -> str:
    if isinstance(value, str):
        return f"{label}={quoted(value)}"
    return f"{label}=~{quoted('|'.join(map(re.escape, value)))}"


def quoted(value: str) -> str:
    """A string literal of PromQL, which takes Go's escapes: JSON's are among them, but for surrogate pairs."""
    return json.dumps(value, ensure_ascii=False)


def plain(text: str) -> str:
    """Text in an annotation or a label of a rule, which are Go templates: nothing in it is carried out."""
    return text.replace("{{", '{{"{{"}}')
