"""What a worker may not do: limits of the kernel, and a filter of system calls."""
