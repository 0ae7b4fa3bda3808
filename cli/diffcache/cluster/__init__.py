"""What `kubectl diffcache` knows of a cluster; kubectl does the talking."""
