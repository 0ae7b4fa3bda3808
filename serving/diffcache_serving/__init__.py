"""The serving process: a gRPC endpoint that resumes similar prompts from cached latents."""

from diffcache_serving.environment import drop_foreign_variables

drop_foreign_variables()  # here, because this module runs before any of our modules imports a library
