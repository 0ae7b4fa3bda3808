"""The commands of `diffcache`, one file each."""
