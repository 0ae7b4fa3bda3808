"""The tuning loop: it decides on levels and a capacity from what the pods have counted."""
