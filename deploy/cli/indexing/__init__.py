"""Commands that read images into collections, and into files of vectors: index, embed, latents."""
