"""What the cache decides: levels, the choice of a resume, eviction policies, spaces, states. Pure."""
