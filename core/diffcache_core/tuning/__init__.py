"""What the tuner decides: levels and capacity, from measurements alone. Pure."""
