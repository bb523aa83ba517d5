"""Label selectors."""

from r1plus_operator.plan.observation import Json


def selects(selector: Json, labels: dict[str, str]) -> bool:
    """Select as Kubernetes does."""
    equal = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    exist = {"Exists": True, "DoesNotExist": False}
    return equal and all(
        exist[one["operator"]] is (one["key"] in labels) for one in selector.get("matchExpressions", [])
    )
