"""Image files to pixels and back, noise, and contact sheets."""

from lookalike.encoder.images.camera_noise import Camera, add_camera_noise, sample_camera
from lookalike.encoder.images.contact_sheet import Tile, contact_sheet, grid, numbered_boxes, save_image
from lookalike.encoder.images.decode import (
    DECODING,
    DEFAULT_MAX_PIXELS,
    DEFAULT_MAX_SHRUNK_PIXELS,
    PixelBudget,
    image_size,
)
from lookalike.encoder.images.find import (
    IMAGE_SUFFIXES,
    OnSkipped,
    find_images,
    find_names,
    is_image,
    skipped_summary,
    suffixes_of,
)
from lookalike.encoder.images.noise import (
    MIN_POISSON_LEVEL,
    NoiseKind,
    NoiseSpec,
    add_noise,
    correlated_noise,
    sample_noise,
    saved_as_jpeg,
)
from lookalike.encoder.images.planes import box_means, half_size, resize_floats
from lookalike.encoder.images.preprocess import (
    LFW_CROP,
    Crop,
    ImageSpec,
    Resampling,
    decode_rgb,
    decoded_rgb,
    encode_png,
    encode_pnm,
    read_pixels,
    to_uint8,
)
from lookalike.encoder.images.read import ImageFile, ImageMetadata, Values, read_image_file
from lookalike.encoder.images.write import WRITABLE_FORMATS, write_image_file

__all__ = [
    "DECODING",
    "DEFAULT_MAX_PIXELS",
    "DEFAULT_MAX_SHRUNK_PIXELS",
    "IMAGE_SUFFIXES",
    "LFW_CROP",
    "MIN_POISSON_LEVEL",
    "WRITABLE_FORMATS",
    "Camera",
    "Crop",
    "ImageFile",
    "ImageMetadata",
    "ImageSpec",
    "NoiseKind",
    "NoiseSpec",
    "OnSkipped",
    "PixelBudget",
    "Resampling",
    "Tile",
    "Values",
    "add_camera_noise",
    "add_noise",
    "box_means",
    "contact_sheet",
    "correlated_noise",
    "decode_rgb",
    "decoded_rgb",
    "encode_png",
    "encode_pnm",
    "find_images",
    "find_names",
    "grid",
    "half_size",
    "image_size",
    "is_image",
    "numbered_boxes",
    "read_image_file",
    "read_pixels",
    "resize_floats",
    "sample_camera",
    "sample_noise",
    "save_image",
    "saved_as_jpeg",
    "skipped_summary",
    "suffixes_of",
    "to_uint8",
    "write_image_file",
]
