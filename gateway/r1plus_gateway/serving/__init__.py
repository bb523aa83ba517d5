"""Models and pods: which deployments there are, one channel per pod, one call per request."""
