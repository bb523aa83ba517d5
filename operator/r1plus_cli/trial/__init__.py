"""Command of a first trial on a cluster: `r1plus try`."""
