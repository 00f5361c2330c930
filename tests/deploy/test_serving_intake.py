"""What may be decoded, and masks as run lengths; no server."""

import base64
import random
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from ppmtl_service.answers import encode_mask, run_lengths
from ppmtl_service.errors import ServiceError
from ppmtl_service.intake import Upload, image_size
from serving_fakes import encoded, image

from ppmtl.data.images import decode_image

LIMITS = (16_000_000, 16_384)  # pixels, longer side
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
    data = bytearray(encoded(image(), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def bmp_saying(width: int, height: int) -> bytes:
    data = bytearray(encoded(image(), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def webp_saying(width: int, height: int) -> bytes:
    def le24(value: int) -> bytes:
        return struct.pack("<I", value)[:3]

    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + le24(width - 1) + le24(height - 1)
    frame = le24(0) * 2 + le24(79) + le24(59) + le24(100) + b"\0" + encoded(image(), "WEBP")[12:]
    body += b"ANIM" + struct.pack("<I", 6) + b"\0" * 6 + b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def refused(data: bytes, limits: tuple[int, int] = LIMITS) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        image_size(Upload("a.jpg", data), *limits)
    assert caught.value.detail.startswith("a.jpg: ")
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_the_header_gives_the_size_that_decoding_gives(kind):
    data = encoded(noise(), kind)
    assert image_size(Upload("a", data), *LIMITS) == decode_image(data, "a").shape[:2] == (60, 80)


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
def test_what_is_no_image_is_415_whatever_its_name(data):
    error = refused(data)
    assert (error.status_code, error.code) == (415, "not_an_image")


@pytest.mark.parametrize("start", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x64\0\0\0WEBP", b"BM"])
def test_html_behind_a_images_first_bytes_is_422(start):
    assert refused(start + b"<html><script>alert(1)</script></html>" * 9).status_code == 422


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
    assert (error.status_code, error.code) == (413, "image_too_large")
    assert f"{size[0]} x {size[1]} pixels; allowed are 16000000 pixels" in error.detail
    assert peak < 5_000_000


@pytest.mark.parametrize("data", [png_header(100_000, 1), png_header(1, 20_000), jpeg_saying(65_535, 1)])
def test_absurdly_long_images_are_413(data):
    assert refused(data).code == "image_too_large"


IMPOSSIBLE = [png_header(0, 10), png_header(2**31, 10), png_header(2**32 - 1, 2**32 - 1)]
IMPOSSIBLE += [jpeg_saying(0, 10), bmp_saying(-5, 3), bmp_saying(0, 0)]


@pytest.mark.parametrize("data", IMPOSSIBLE)
def test_impossible_sizes_are_refused(data):
    assert refused(data).status_code in (413, 422)


def test_an_image_at_the_limit_passes_and_one_pixel_more_does_not():
    assert image_size(Upload("a", encoded(noise())), 60 * 80, 80) == (60, 80)
    assert refused(encoded(noise(60, 81)), (60 * 80, 99)).status_code == 413


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes_give_an_image_or_a_reason_and_nothing_else(kind):
    rng, limit = random.Random(0), 1_000_000
    data = encoded(noise(30, 40), kind)
    statuses = []
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(rng.randint(1, 8)):  # mostly in the header, where sizes and lengths are
            broken[rng.randrange(4, min(len(broken), 200))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        try:
            image_size(Upload("a", bytes(broken)), limit, 16_384)
            assert decode_image(bytes(broken), "a").size <= 3 * limit
        except ServiceError as error:
            statuses.append(error.status_code)
        except ValueError:  # of the decoder; the service answers 422
            statuses.append(422)
    assert len(statuses) > 5
    assert set(statuses) <= {413, 415, 422}


def test_run_lengths_are_pairs_of_class_and_length_over_line_ends():
    assert run_lengths(np.array([[0, 0, 2], [2, 2, 1]], np.uint8)) == [0, 2, 2, 3, 1, 1]
    assert run_lengths(np.zeros((2, 2), np.uint8)) == [0, 4]


def test_both_masks_hold_the_label_map():
    labels = np.random.default_rng(0).integers(0, 3, (20, 30), np.uint8)
    png = base64.b64decode(encode_mask(labels, "png")["data"])
    assert np.array_equal(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), labels)
    rle = encode_mask(labels, "rle")
    pairs = np.array(rle["counts"]).reshape(-1, 2)
    assert np.array_equal(np.repeat(pairs[:, 0], pairs[:, 1]).reshape(rle["size"]), labels)
