"""One module per migration; each is one transaction, and can be reverted."""
