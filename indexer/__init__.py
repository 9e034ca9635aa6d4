"""Fills a vector store with the embeddings of image collections."""
