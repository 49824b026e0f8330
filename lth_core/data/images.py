"""Pixels of one image file."""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import Any

import numpy as np

from lth_core.spec.data import Alpha

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8] | np.dtype[np.float32]]
"""(channels, height, width): uint8, or float32 in 0..255; one channel is grey, three are RGB."""

SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pbm",
    ".pnm", ".tif", ".tiff", ".jp2",
}  # fmt: skip
"""Endings of the files that are read as images."""

UNREAD_SUFFIXES = {
    ".avif", ".dcm", ".exr", ".hdr", ".heic", ".heif", ".ico", ".j2k", ".jxl", ".mat", ".nii",
    ".npy", ".npz", ".pcx", ".pfm", ".psd", ".pt", ".raw", ".svg", ".tga",
}  # fmt: skip
"""Endings of files that hold images, or arrays, and are not read."""

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF", "JPEG2000")
"""Kinds of content that are read, whatever the ending: some others would start a program."""

GREY = {"1", "L", "LA"}
COLOUR = {"RGB", "RGBA", "P", "PA", "CMYK", "YCbCr"}
DEEP = {"I", "I;16", "I;16B", "F"}
"""Pillow's modes of grey images with more than 8 bits, and of all images that are read."""

BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
"""Numbers of TIFF's tags."""

WHITE_IS_ZERO = 0
SIGNED = 2
"""Values of TIFF's tags of the photometric interpretation and the sample format."""


def decode(content: bytes, alpha: Alpha) -> Pixels:
    """Pixels of an image file, in 0..255.

    - Images with 8 bits or fewer a channel are uint8. So are images with 9 to 16 bits, by the high
      byte: 16-bit grey becomes ``value >> 8``.
    - 32-bit integers are scaled to float32 by the range of their type, from 0 to its largest value.
      The range of a float image is [0, 1]: ``255 * value``.
    - Transparent pixels are composited on black or white.
    - Palette, CMYK and YCbCr images become RGB. Colour profiles are not applied.
    - The orientation that EXIF names is applied.

    An image is grey or colour by its file's mode: an RGB file without colour has three channels.

    Args:
        alpha: colour behind transparent pixels.

    Raises:
        Exception: of any kind, where the image is damaged or not of a kind that is read.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damaged metadata that no pixel depends on
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(BytesIO(content), formats=[f for f in FORMATS if f in Image.OPEN])
        except UnidentifiedImageError:
            raise ValueError(f"Pillow reads it as none of {', '.join(FORMATS)}") from None
        with image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # a photo with its preview
                raise ValueError(f"has {frames} frames, but must have one")
            if image.mode in DEEP:
                return _deep_grey(image, ImageOps.exif_transpose(image), alpha)
            if image.mode not in GREY | COLOUR:
                raise ValueError(f"has Pillow's mode {image.mode}, which is not read")
            return _bytes(ImageOps.exif_transpose(_with_scaled_transparency(image)), alpha)


def _with_scaled_transparency(image: Any) -> Any:
    """The image; a PNG of 2 or 4 grey bits with its transparent grey as a byte, as its pixels are.

    Pillow 13 scales the pixels alone.
    """
    scale = {"L;2": 85, "L;4": 17}.get(str(image.tile[0][3]) if image.tile else "")
    grey = image.info.get("transparency")
    if scale and isinstance(grey, int):
        image.load()
        image.info["transparency"] = grey * scale
    return image


def _bytes(image: Any, alpha: Alpha) -> Pixels:
    """Pixels (channels, height, width) uint8 of an image with 8 bits a channel."""
    from PIL import Image

    grey = image.mode in GREY
    if _has_transparency(image):
        canvas = Image.new("RGBA", image.size, alpha)
        rgb = np.asarray(Image.alpha_composite(canvas, image.convert("RGBA")))[..., :3]
        array = rgb[..., :1] if grey else rgb
    else:
        array = np.atleast_3d(np.asarray(image.convert("L" if grey else "RGB")))
    return array.transpose(2, 0, 1)


def _has_transparency(image: Any) -> bool:
    palette = getattr(image.palette, "mode", "") if image.mode == "P" else ""
    return image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info or "A" in palette


def _deep_grey(image: Any, upright: Any, alpha: Alpha) -> Pixels:
    """Pixels (1, height, width) of a grey image with more than 8 bits a pixel.

    Args:
        image: has the file's tags.
        upright: its pixels after EXIF's orientation.
    """
    tags = getattr(image, "tag_v2", {})
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        raise ValueError("has more than 8 bits a pixel with 0 for white, which is not read")
    if image.mode == "F":
        return _float_pixels(np.asarray(upright))
    bits = tags[BITS_PER_SAMPLE][0] if tags else 16  # PNG, PGM and JPEG 2000
    signed = bool(tags) and tags.get(SAMPLE_FORMAT, (1,))[0] == SIGNED
    values = np.asarray(upright).astype(np.int64)
    if bits == 32 and not signed:
        values &= 0xFFFFFFFF  # Pillow reads them as signed
    if values.min() < 0:
        raise ValueError(f"has {int((values < 0).sum())} negative values, at least {values.min()}")
    depth = bits - signed  # a signed type's largest value has one bit less
    pixels: Pixels
    if depth <= 16:
        pixels = (values >> (depth - 8)).astype(np.uint8)[None]
    else:
        pixels = (values * (255 / (2**depth - 1))).astype(np.float32)[None]
    transparent = image.info.get("transparency")
    if transparent is not None:
        pixels = np.where(values == transparent, {"black": 0, "white": 255}[alpha], pixels)
        pixels = pixels.astype(np.uint8)
    return pixels


def _float_pixels(values: np.ndarray[Any, np.dtype[np.float32]]) -> Pixels:
    """Pixels (1, height, width) float32 of values (height, width) in [0, 1]."""
    if not np.isfinite(values).all():
        wrong = int((~np.isfinite(values)).sum())
        raise ValueError(f"has {wrong} values that are not finite")
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"has values from {values.min():g} to {values.max():g}; those of a float "
                         f"image must lie in [0, 1]")  # fmt: skip
    return (values.astype(np.float64) * 255).astype(np.float32)[None]
