"""The supported families of models. Each has its own package and implements `engine.diffusion_model.DiffusionModel`."""
