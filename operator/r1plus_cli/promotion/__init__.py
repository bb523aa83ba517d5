"""Command of a promotion: `r1plus wait`."""
