"""Memory of one conversation: what of its earlier turns enters a prompt. Pure: it reads no file and keeps nothing."""
