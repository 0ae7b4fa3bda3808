"""The tuner of `diffcache up`. diffcache_core decides from the counters of this process; the config file applies it."""
