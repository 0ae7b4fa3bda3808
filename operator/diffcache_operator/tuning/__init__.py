"""The tuning loop: what the pods have counted becomes levels and a capacity."""
