"""From tokens to text and back: tokenizers, messages, control tokens."""
