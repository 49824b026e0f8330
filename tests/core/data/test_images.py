"""Pixels of single image files, in every mode that Pillow writes."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lth_core.data.images import decode

BYTES = np.random.default_rng(0).integers(0, 256, (6, 5), np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 256, (6, 5, 3), np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_bytes_are_read_as_they_are() -> None:
    assert np.array_equal(decode(encoded(Image.fromarray(BYTES)), "black"), BYTES[None])
    pixels = decode(encoded(Image.fromarray(COLOURS)), "black")
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, COLOURS.transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_16_bit_grey_is_read_by_its_high_byte(kind: str) -> None:
    noise = np.random.default_rng(2).integers(0, 256, BYTES.shape, np.uint16)
    deep = BYTES.astype(np.uint16) * 256 + noise
    pixels = decode(encoded(Image.fromarray(deep), kind), "black")
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, BYTES[None])


def test_16_bit_grey_of_either_byte_order_is_read() -> None:
    deep = BYTES.astype(np.uint16) * 257
    for order in (">u2", "<u2"):
        pixels = decode(tiff(deep.astype(order), 16, 1, order[0]), "black")
        assert np.array_equal(pixels, BYTES[None])


def png(
    width: int, height: int, bits: int, colour: int, rows: bytes, transparency: bytes = b""
) -> bytes:
    """A PNG as its specification says; Pillow cannot write all of these types.

    Args:
        colour: 0 for grey, 2 for RGB.
        rows: each begins with a byte 0.
        transparency: content of its chunk tRNS.
    """
    import struct
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *([chunk(b"tRNS", transparency)] if transparency else [])]
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_16_bit_colour_is_read_by_its_high_byte() -> None:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in COLOURS.astype(int) * 256 + 77)
    assert np.array_equal(decode(png(5, 6, 16, 2, rows), "black"), COLOURS.transpose(2, 0, 1))


@pytest.mark.parametrize(("bits", "row", "transparent", "expected"), [
    (1, 0b10100000, 1, [0, 0, 0, 0]), (2, 0b00011011, 2, [0, 85, 0, 255]),
    (4, 0x5A, 5, [0, 170]), (8, 0x05, 5, [0]),
])  # fmt: skip
def test_transparent_grey_of_few_bits_is_composited(
    bits: int, row: int, transparent: int, expected: list[int]
) -> None:
    image = png(len(expected), 1, bits, 0, bytes([0, row]), bytes([0, transparent]))
    assert decode(image, "black").reshape(-1).tolist() == expected


def tiff(
    values: Any, bits: int, sample_format: int, order: str = "<", photometric: int = 1
) -> bytes:
    """A grey TIFF as its specification says; Pillow cannot write all of these types."""
    import struct

    height, width = values.shape
    tags = {
        256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height,
        279: values.nbytes, 339: sample_format,
    }  # fmt: skip
    rows = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + values.nbytes)
    folder = struct.pack(order + "H", len(tags)) + rows + b"\0\0\0\0"
    return head + values.tobytes() + folder


UNSIGNED, SIGNED, FLOAT = 1, 2, 3


@pytest.mark.parametrize(
    ("values", "bits", "sample_format"),
    [
        (BYTES.astype("<u4") * 0x01010101, 32, UNSIGNED),
        ((BYTES / 255.0 * (2**31 - 1)).astype("<i4"), 32, SIGNED),
        ((BYTES / 255.0).astype("<f4"), 32, FLOAT),
    ],
)
def test_32_bit_and_float_grey_is_scaled_by_the_range_of_its_type(
    values: Any, bits: int, sample_format: int
) -> None:
    pixels = decode(tiff(values, bits, sample_format), "black")
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, BYTES[None], atol=1e-4)


def test_signed_16_bit_grey_is_read_by_its_range() -> None:
    pixels = decode(tiff(BYTES.astype("<i2") * 128 + 100, 16, SIGNED), "black")
    assert np.array_equal(pixels, BYTES[None])


def test_32_bit_grey_of_few_values_keeps_them_apart() -> None:
    pixels = decode(encoded(Image.fromarray(BYTES.astype(np.int32)), "TIFF"), "black")
    assert len(np.unique(pixels)) == len(np.unique(BYTES))


@pytest.mark.parametrize("background", ["black", "white"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_composited(background: Any, kind: str) -> None:
    alpha = np.zeros((6, 5, 1), np.uint8)
    alpha[:3], alpha[3] = 255, 128
    image = Image.fromarray(np.concatenate([COLOURS, alpha], 2))
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    pixels = decode(encoded(image, kind, **options), background).transpose(1, 2, 0)
    behind = {"black": 0, "white": 255}[background]
    assert np.array_equal(pixels[:3], COLOURS[:3])
    assert (pixels[4:] == behind).all()
    blend = (COLOURS[3] * 128.0 + behind * 127.0) / 255
    np.testing.assert_allclose(pixels[3], blend, atol=1)


def test_grey_with_alpha_stays_grey() -> None:
    alpha = np.where(np.arange(5) < 2, 255, 0).astype(np.uint8)[None].repeat(6, 0)
    image = Image.merge("LA", [Image.fromarray(BYTES), Image.fromarray(alpha)])
    pixels = decode(encoded(image), "white")
    assert pixels.shape == (1, 6, 5)
    assert np.array_equal(pixels[0, :, :2], BYTES[:, :2])
    assert (pixels[0, :, 2:] == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_entry_of_a_palette_is_composited(kind: str) -> None:
    image = Image.fromarray((np.arange(30).reshape(6, 5) % 3).astype(np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    opaque = decode(encoded(image, kind), "white")
    assert sorted(np.unique(opaque.reshape(3, -1), axis=1).T.tolist()) == [
        [0, 0, 255], [0, 255, 0], [255, 0, 0],
    ]  # fmt: skip
    pixels = decode(encoded(image, kind, transparency=1), "white")
    assert sorted(np.unique(pixels.reshape(3, -1), axis=1).T.tolist()) == [
        [0, 0, 255], [255, 0, 0], [255, 255, 255],
    ]  # fmt: skip


def test_transparent_value_of_grey_and_colour_is_composited() -> None:
    deep = BYTES.astype(np.uint16) * 256 + 9
    for array, value in ((BYTES, int(BYTES[2, 3])), (deep, int(deep[2, 3]))):
        pixels = decode(encoded(Image.fromarray(array), transparency=value), "white")
        assert np.array_equal(pixels[0], np.where(array == value, 255, BYTES))
    colour = decode(
        encoded(Image.fromarray(COLOURS), transparency=tuple(map(int, COLOURS[2, 3]))), "white"
    )
    assert colour[:, 2, 3].tolist() == [255] * 3
    assert np.array_equal(colour[:, :2], COLOURS.transpose(2, 0, 1)[:, :2])


def test_one_bit_cmyk_and_ycbcr_images_are_read() -> None:
    assert np.unique(decode(encoded(Image.fromarray(BYTES > 99)), "black")).tolist() == [0, 255]
    flat = Image.new("CMYK", (5, 6), (0, 255, 255, 0))
    red = decode(encoded(flat, "TIFF"), "black")
    assert red.shape == (3, 6, 5)
    assert red[:, 0, 0].tolist() == [255, 0, 0]
    photo = decode(encoded(Image.new("RGB", (5, 6), (200, 10, 10)), "JPEG"), "black")
    np.testing.assert_allclose(photo[:, 0, 0], [200, 10, 10], atol=3)


@pytest.mark.parametrize(
    ("kind", "array"),
    [
        *((kind, array) for kind in ("JPEG", "PNG", "TIFF", "WEBP") for array in (BYTES, COLOURS)),
        *((kind, BYTES.astype(np.uint16) * 256) for kind in ("PNG", "TIFF")),
    ],
)
def test_orientation_of_exif_is_applied(kind: str, array: Any) -> None:
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees clockwise
    plain = decode(encoded(Image.fromarray(array), kind), "black")
    turned = decode(encoded(Image.fromarray(array), kind, exif=exif), "black")
    assert np.array_equal(turned, np.rot90(plain, -1, (1, 2)))


def frames(kind: str) -> bytes:
    other = Image.fromarray(255 - COLOURS)
    return encoded(Image.fromarray(COLOURS), kind, save_all=True, append_images=[other])


def float_tiff(value: float) -> bytes:
    values = np.zeros((6, 5), np.float32)
    values[1, 1] = value
    return tiff(values, 32, FLOAT)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: b"", "Pillow reads it as none of PNG, JPEG"),
        (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n", "Pillow reads it as none of"),
        (lambda: float_tiff(np.nan), "1 values that are not finite"),
        (lambda: float_tiff(200), r"values from 0 to 200; .* must lie in \[0, 1\]"),
        (lambda: float_tiff(-0.5), r"values from -0.5 to 0; .* must lie in \[0, 1\]"),
        (lambda: tiff(BYTES.astype("<i4") - 100, 32, SIGNED), "negative values, at least -"),
        (lambda: tiff(BYTES.astype("<u2"), 16, UNSIGNED, photometric=0), "0 for white"),
        (lambda: tiff(BYTES / 255.0, 64, FLOAT), "Pillow reads it as none of"),
        (lambda: frames("GIF"), "has 2 frames"),
        (lambda: frames("PNG"), "has 2 frames"),
        (lambda: frames("TIFF"), "has 2 frames"),
        (lambda: encoded(Image.new("LAB", (5, 6)), "TIFF"), "mode LAB, which is not read"),
    ],
)
def test_image_that_is_not_read_says_why(content: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode(content(), "black")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF", "JPEG2000"])
def test_truncated_file_is_refused(kind: str, share: float) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (40, 40, 3), np.uint8)
    whole = encoded(Image.fromarray(pixels), kind)
    decode(whole, "black")
    with pytest.raises(Exception):  # noqa: B017, PT011  the kind depends on the decoder
        decode(whole[: int(share * len(whole))], "black")


@pytest.mark.parametrize("factor", [1.5, 3])
def test_decompression_bomb_is_refused(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow warns of images above its limit, and refuses those of twice its size."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(30 / factor))
    with pytest.raises(Exception, match="decompression bomb"):
        decode(encoded(Image.fromarray(BYTES)), "black")
