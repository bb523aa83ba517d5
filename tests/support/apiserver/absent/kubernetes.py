"""Stands in for the package `kubernetes`, which the operator's image lacks: kopf imports it wherever it finds it."""

raise ImportError("the operator's image has no package `kubernetes`")
