"""The tenant's calculator: exact arithmetic, algebra and calculus, in a process of its own beside the gateway."""
