"""Commands that read images and make images."""
