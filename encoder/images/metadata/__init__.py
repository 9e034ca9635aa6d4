"""What a file says of its image: EXIF, XMP, and the parts of a JPEG file."""
