"""The gRPC edge: parse, convert, and turn errors into statuses. Decides nothing."""
