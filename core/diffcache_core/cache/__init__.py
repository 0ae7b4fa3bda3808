"""The decisions of the cache: levels, the choice of a resume, eviction policies, spaces, states. Pure."""
