"""The verbs of `r1plus engine` that train and export models, and the Job that trains an engine in a cluster.

They parse options and orders; `r1plus_model` trains, and `r1plus_export` writes. Both are imported when a verb runs.
"""
