"""The engine catalog: the types of R1PlusEngine, their loader, and the shipped engines (smollm2.yaml)."""
