"""What stands before the routes and around the engine: keys, caps, rates, filters, the access log, what is captured."""
