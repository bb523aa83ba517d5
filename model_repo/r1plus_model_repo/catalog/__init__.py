"""The engine catalog: the types of R1PlusEngine, their loader, and the engines that are shipped (smollm2.yaml)."""
