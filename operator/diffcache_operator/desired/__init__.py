"""Pure functions that make the desired children of a resource."""
