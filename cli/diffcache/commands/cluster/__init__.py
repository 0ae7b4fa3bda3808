"""The commands of `kubectl diffcache`, one file each."""
