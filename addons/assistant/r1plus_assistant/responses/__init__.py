"""The Responses API: requests, forms of answers, storage."""
