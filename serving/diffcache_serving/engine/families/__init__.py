"""The families of models that are served: one package each, behind `engine.diffusion_model.DiffusionModel`."""
