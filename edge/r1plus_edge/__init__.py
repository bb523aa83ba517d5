"""The edge tier: what the operator's plan renders, run on one machine without Kubernetes and without root."""
