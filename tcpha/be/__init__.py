"""The back end: rebuilds handed-off connections beside an unmodified server."""
