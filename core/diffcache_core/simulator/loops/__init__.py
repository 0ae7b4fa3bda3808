"""A simulated day of a whole cluster: pods, their cache, the tuner and the scalers, on one clock."""
