"""`r1plus preflight`: whether a cluster has what the chart needs, and the chart's values for it."""
