"""Keys of encryption: the ring, the root, data keys, and their rotation."""
