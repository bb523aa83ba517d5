"""R1PlusDeployments as kopf brings them, and what it never sees."""
