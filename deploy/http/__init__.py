"""The HTTP service: a FastAPI application, its middleware, limits and background jobs."""
