"""The tuner of `diffcache up`: core's decision from this process's own counters, carried out through its config."""
