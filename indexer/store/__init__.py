"""The protocol of a vector store and its values; names no engine."""
