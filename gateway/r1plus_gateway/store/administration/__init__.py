"""Records of API keys, and the audit log."""
