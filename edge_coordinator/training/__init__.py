"""The algorithm and the server-side model; no network."""
