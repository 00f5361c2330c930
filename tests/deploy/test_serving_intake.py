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
from serving_fakes import encoded

from ppmtl.data.images import decode_image

LIMITS = (16_000_000, 16_384)  # pixels, longer side
KINDS = ("JPEG", "PNG", "WEBP", "BMP")
NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


def saying(kind: str, width: int, height: int) -> bytes:
    """A small file whose header says to be so large."""
    data = bytearray(encoded(NOISE, kind))
    if kind == "PNG":
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif kind == "JPEG":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    else:
        data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def refused(data: bytes, limits: tuple[int, int] = LIMITS) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        image_size(Upload("a.jpg", data), *limits)
    assert caught.value.detail.startswith("a.jpg: ")
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_the_header_gives_the_size_that_decoding_gives(kind):
    data = encoded(NOISE, kind)
    assert image_size(Upload("a", data), *LIMITS) == decode_image(data, "a").shape[:2] == (60, 80)


@pytest.mark.parametrize(
    "data",
    [b"<svg onload='alert(1)'/>", b"text", b"%PDF-1.7\n", b"GIF89a" + b"\0" * 50, b"\xff\xd8", b"RIFF\x10\0\0\0WAVE"],
)
def test_what_is_no_image_is_415_whatever_its_name(data):
    assert (refused(data).status_code, refused(data).code) == (415, "not_an_image")


@pytest.mark.parametrize("start", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x64\0\0\0WEBP", b"BM"])
def test_html_behind_an_images_first_bytes_is_422(start):
    assert refused(start + b"<html><script>alert(1)</script></html>" * 9).status_code == 422


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
@pytest.mark.parametrize("size", [(4001, 4000), (16_000, 16_000), (65_535, 1)])
def test_a_decompression_bomb_is_413_and_costs_no_memory(kind, size):
    data = saying(kind, *size)
    tracemalloc.start()
    error = refused(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (error.status_code, error.code) == (413, "image_too_large")
    assert f"{size[0]} x {size[1]} pixels; allowed are 16000000 pixels" in error.detail
    assert peak < 5_000_000


@pytest.mark.parametrize(
    "kind, size", [("PNG", (0, 10)), ("PNG", (2**32 - 1, 2**32 - 1)), ("JPEG", (0, 10)), ("BMP", (-5, 3))]
)
def test_impossible_sizes_are_refused(kind, size):
    assert refused(saying(kind, *size)).status_code in (413, 422)


def test_a_jpeg_of_a_thousand_scans_is_refused_before_it_is_decoded():
    data = cv2.imencode(".jpg", NOISE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert image_size(Upload("a", data), *LIMITS) == (60, 80)
    scan = data[data.rindex(b"\xff\xda") : -2]
    error = refused(data[:-2] + scan * 1000 + b"\xff\xd9")
    assert error.status_code == 422
    assert "more than 100 scans" in error.detail


def test_an_image_at_the_limit_passes_and_one_pixel_more_does_not():
    assert image_size(Upload("a", encoded(NOISE)), 60 * 80, 80) == (60, 80)
    assert (
        refused(encoded(NOISE), (60 * 80 - 1, 80)).status_code == refused(encoded(NOISE), (9999, 79)).status_code == 413
    )


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes_give_an_image_or_a_reason_and_nothing_else(kind):
    rng, limit, data, statuses = random.Random(0), 1_000_000, encoded(NOISE[:30, :40], kind), []
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


def test_both_masks_hold_the_label_map():
    assert run_lengths(np.array([[0, 0, 2], [2, 2, 1]], np.uint8)) == [0, 2, 2, 3, 1, 1]
    labels = np.random.default_rng(0).integers(0, 3, (20, 30), np.uint8)
    png = base64.b64decode(encode_mask(labels, "png")["data"])
    assert np.array_equal(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), labels)
    rle = encode_mask(labels, "rle")
    pairs = np.array(rle["counts"]).reshape(-1, 2)
    assert np.array_equal(np.repeat(pairs[:, 0], pairs[:, 1]).reshape(rle["size"]), labels)
