"""The serving process: a gRPC endpoint that resumes similar prompts from cached latents."""
