"""Who calls, what they may use, and what it costs them."""
