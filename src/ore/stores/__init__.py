"""Durable state: what was answered, and to whom it belongs."""
