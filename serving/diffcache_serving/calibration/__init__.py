"""`diffcache calibrate`: measures what a model may skip, decides its levels, and says how far to trust them."""
