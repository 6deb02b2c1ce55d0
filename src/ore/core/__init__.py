"""Pure functions and values: no I/O, no clock, no randomness but the ids handed in."""
