"""Which backend answers which request."""
