"""Files to embeddings, in parallel and in bounded memory."""
