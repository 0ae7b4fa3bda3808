"""What every door shares: drafts of requests, limits, draining, errors. It knows no wire."""
