"""Objects of Kubernetes as operator and command line read them: small typed views of what an API server answers."""
