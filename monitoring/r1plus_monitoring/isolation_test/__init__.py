"""The prober of walls and the decoy that it attacks, as the operator's Jobs and the decoy's Deployment start them.

Only the contract and the standard library: what attacks walls should be short enough to be read, and what it found is
judged elsewhere (`r1plus_policies.isolation`).
"""
