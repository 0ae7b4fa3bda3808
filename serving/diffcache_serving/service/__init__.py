"""The logic that every protocol shares: drafts of requests, limits, draining, errors. It knows no protocol."""
