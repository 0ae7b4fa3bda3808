"""What should be there: pure functions from a resource to its children."""
