"""Small typed views of Kubernetes objects, as operator and command line read them from the API server."""
