"""Several replicas behind a router: what their events promise it, and what it makes of that."""
