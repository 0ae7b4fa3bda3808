"""Everything that touches the device: the model, the schedules and the step loop."""
