"""What the monitor is told, and what it writes besides its report (`verdict`)."""
