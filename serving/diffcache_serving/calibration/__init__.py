"""`diffcache calibrate`: measures how many steps a model may skip, decides its levels, and reports how reliable they
are."""
