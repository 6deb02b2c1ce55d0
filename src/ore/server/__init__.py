"""HTTP: thin. Bytes in, checked requests to the runs, bytes out."""
