"""Keys, budgets, usage and the audit log in the tenant's database."""
