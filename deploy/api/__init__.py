"""Similar-image search that trains its own encoder."""
