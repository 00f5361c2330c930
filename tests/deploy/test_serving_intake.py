"""What may be decoded, and masks as run lengths; no server."""

import base64
import io
import random
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from ppmtl_service.answers import encode_mask, run_lengths
from ppmtl_service.errors import ServiceError
from ppmtl_service.intake import Upload, decode, picture_size
from ppmtl_service.options import Options
from serving_fakes import encoded, picture

OPTIONS = Options()
KINDS = ("JPEG", "PNG", "WEBP", "BMP")


def noise(height=60, width=80):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def png_header(width: int, height: int) -> bytes:
    """A PNG that says to be so large and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


def jpeg_saying(width: int, height: int) -> bytes:
    data = bytearray(encoded(picture(), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def bmp_saying(width: int, height: int) -> bytes:
    data = bytearray(encoded(picture(), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def webp_saying(width: int, height: int) -> bytes:
    def le24(value: int) -> bytes:
        return struct.pack("<I", value)[:3]

    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + le24(width - 1) + le24(height - 1)
    frame = le24(0) * 2 + le24(79) + le24(59) + le24(100) + b"\0" + encoded(picture(), "WEBP")[12:]
    body += b"ANIM" + struct.pack("<I", 6) + b"\0" * 6 + b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def refused(data: bytes, options: Options = OPTIONS) -> ServiceError:
    def read() -> None:
        upload = Upload("a.jpg", data)
        picture_size(upload, options)
        decode(upload)

    with pytest.raises(ServiceError) as caught:
        read()
    assert caught.value.message.startswith("a.jpg: ")
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_the_header_gives_the_size_that_decoding_gives(kind):
    upload = Upload("a", encoded(noise(), kind))
    assert picture_size(upload, OPTIONS) == decode(upload).shape[:2] == (60, 80)


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        b"<!doctype html><script>alert(1)</script>",
        b"\xef\xbb\xbf<?xml version='1.0'?><svg/>",
        b"just text",
        b"%PDF-1.7\n",
        b"GIF89a" + b"\0" * 50,
        b"II*\0" + b"\0" * 50,
        b"PK\x03\x04" + b"\0" * 50,
        b"\0" * 100,
        b"\xff\xd8",
        b"RIFF\x10\0\0\0WAVEfmt ",
    ],
)
def test_what_is_no_picture_is_415_whatever_its_name(data):
    error = refused(data)
    assert (error.status, error.code) == (415, "not_an_image")


@pytest.mark.parametrize("start", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x64\0\0\0WEBP", b"BM"])
def test_html_behind_a_pictures_first_bytes_is_422(start):
    assert refused(start + b"<html><script>alert(1)</script></html>" * 9).status == 422


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0.02, 0.3, 0.9])
def test_a_cut_off_file_is_422(kind, keep):
    data = encoded(noise(), kind)
    error = refused(data[: max(12, int(len(data) * keep))])
    assert (error.status, error.code) == (422, "broken_image")


def test_an_empty_file_is_422():
    assert refused(b"").code == "empty_file"


@pytest.mark.parametrize("bomb", [png_header, jpeg_saying, bmp_saying, webp_saying])
@pytest.mark.parametrize("size", [(4001, 4000), (12_000, 12_000), (16_000, 16_000)])
def test_a_decompression_bomb_is_413_and_costs_no_memory(bomb, size):
    data = bomb(*size)
    tracemalloc.start()
    error = refused(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (error.status, error.code) == (413, "image_too_large")
    assert f"{size[0]} x {size[1]} pixels; allowed are 16000000 pixels" in error.message
    assert peak < 5_000_000


@pytest.mark.parametrize("data", [png_header(100_000, 1), png_header(1, 20_000), jpeg_saying(65_535, 1)])
def test_absurdly_long_pictures_are_413(data):
    assert refused(data).code == "image_too_large"


IMPOSSIBLE = [png_header(0, 10), png_header(2**31, 10), png_header(2**32 - 1, 2**32 - 1)]
IMPOSSIBLE += [jpeg_saying(0, 10), bmp_saying(-5, 3), bmp_saying(0, 0)]


@pytest.mark.parametrize("data", IMPOSSIBLE)
def test_impossible_sizes_are_refused(data):
    assert refused(data).status in (413, 422)


def test_a_picture_at_the_limit_passes_and_one_pixel_more_does_not():
    options = Options(max_pixels=60 * 80)
    assert picture_size(Upload("a", encoded(noise())), options) == (60, 80)
    assert refused(encoded(noise(60, 81)), options).status == 413
    with pytest.raises(ServiceError, match=r"allowed are 1200 pixels in all with tta"):
        picture_size(Upload("a", encoded(noise())), options, tta=True)


def test_a_jpeg_of_a_thousand_scans_is_refused_before_it_is_decoded():
    data = encoded(noise(), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    error = refused(data[:-2] + scan * 1000 + b"\xff\xd9")
    assert "scans" in error.message
    assert picture_size(Upload("a", data), OPTIONS) == (60, 80)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16", "CMYK", "EXIF"])
def test_unusual_pictures_are_read_as_everywhere_in_the_project(mode):
    plain = Image.fromarray(noise())
    buffer = io.BytesIO()
    if mode == "EXIF":
        exif = Image.Exif()
        exif[274] = 6
        plain.save(buffer, "JPEG", exif=exif)
    elif mode == "I;16":
        Image.fromarray(noise()[..., 0].astype(np.uint16) * 256).save(buffer, "PNG")
    else:
        plain.convert(mode).save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    data = buffer.getvalue()
    upload = Upload("a", data)
    height, width = picture_size(upload, OPTIONS)
    image = decode(upload)
    assert image.dtype == np.uint8
    assert image.shape == ((width, height, 3) if mode == "EXIF" else (height, width, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes_give_a_picture_or_a_reason_and_nothing_else(kind):
    rng, options = random.Random(0), Options(max_pixels=1_000_000)
    data = encoded(noise(30, 40), kind)
    statuses = []
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(rng.randint(1, 8)):  # mostly in the header, where sizes and lengths are
            broken[rng.randrange(4, min(len(broken), 200))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        upload = Upload("a", bytes(broken))
        try:
            picture_size(upload, options)
            assert decode(upload).size <= 3 * options.max_pixels
        except ServiceError as error:
            statuses.append(error.status)
    assert len(statuses) > 5
    assert set(statuses) <= {413, 415, 422}


def test_run_lengths_are_pairs_of_class_and_length_over_line_ends():
    assert run_lengths(np.array([[0, 0, 2], [2, 2, 1]], np.uint8)) == [0, 2, 2, 3, 1, 1]
    assert run_lengths(np.zeros((2, 2), np.uint8)) == [0, 4]
    assert run_lengths(np.zeros((0, 2), np.uint8)) == []


def test_both_masks_hold_the_label_map():
    labels = np.random.default_rng(0).integers(0, 3, (20, 30), np.uint8)
    png = base64.b64decode(encode_mask(labels, "png")["data"])
    assert np.array_equal(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), labels)
    rle = encode_mask(labels, "rle")
    pairs = np.array(rle["counts"]).reshape(-1, 2)
    assert np.array_equal(np.repeat(pairs[:, 0], pairs[:, 1]).reshape(rle["size"]), labels)
