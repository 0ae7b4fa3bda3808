"""The serving process: a gRPC endpoint that resumes similar prompts from cached latents."""

from diffcache_serving.environment import drop_foreign_variables

drop_foreign_variables()  # whatever of ours is imported first: no library has been imported yet
