"""Commands that call a tenant's gateway: `key`, `usage`, `audit` and `knowledge`."""
