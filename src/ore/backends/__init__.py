"""Dialects and engines: each turns a `ModelRequest` into deltas, and knows nothing of its siblings."""
