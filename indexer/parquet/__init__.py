"""Latents in Parquet files: export, and load into a collection."""
