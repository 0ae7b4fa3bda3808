"""Access of `kubectl diffcache` to a cluster. It always uses kubectl."""
