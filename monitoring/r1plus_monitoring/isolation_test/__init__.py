"""The isolation probe and its decoy, as the operator's Jobs and the decoy's Deployment start them.

Only the contract and the standard library: a probe that attacks isolation should be short enough to review. Its
findings are judged elsewhere (`r1plus_policies.isolation`).
"""
