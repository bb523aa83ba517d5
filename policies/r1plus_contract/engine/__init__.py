"""What is agreed on engines: how they are delivered and fetched, and what they can be held to."""
