"""Reading images and label maps: every unusual file is read right or refused with its name."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ppmtl.data.headers import shown_size
from ppmtl.data.images import read_image
from ppmtl.data.label_maps import read_label_map


def smooth(height: int = 60, width: int = 80) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 5)


def saved(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def test_png_pixels_come_back_as_rgb(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", smooth())), smooth())


def test_non_ascii_paths_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "交通 été"
    folder.mkdir()
    np.testing.assert_array_equal(read_image(saved(folder / "车.png", smooth())), smooth())
    np.testing.assert_array_equal(read_label_map(saved(folder / "标.png", smooth()[..., 0])), smooth()[..., 0])


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = smooth()[..., 0]
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", grey)), np.dstack([grey] * 3))
    assert read_image(saved(tmp_path / "a.jpg", grey)).shape == (60, 80, 3)


@pytest.mark.parametrize("channels", [2, 4])
def test_transparency_is_dropped_and_the_stored_colours_stay(tmp_path: Path, channels: int) -> None:
    colours = smooth() if channels == 4 else smooth()[..., :1]
    pixels = np.dstack([colours, np.zeros((60, 80), np.uint8)])
    expected = np.broadcast_to(colours, (60, 80, 3))
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", pixels)), expected)


def test_16_bit_keeps_the_upper_eight_bits(tmp_path: Path) -> None:
    deep = smooth()[..., 0].astype(np.uint16) * 256 + 77
    cv2.imwrite(str(tmp_path / "a.png"), deep)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 0], smooth()[..., 0])


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[274] = 6  # "turn 90 degrees clockwise to show"
    turned = read_image(saved(tmp_path / f"a.{suffix}", smooth(), exif=exif))
    plain = read_image(saved(tmp_path / f"b.{suffix}", smooth()))
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))


def test_cmyk_jpeg_is_read_as_rgb(tmp_path: Path) -> None:
    Image.fromarray(smooth()).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - smooth()).mean() < 10


def jpeg_with_thumbnail() -> bytes:
    thumbnail = io.BytesIO()
    Image.fromarray(smooth(20, 20)).save(thumbnail, "JPEG")
    body = io.BytesIO()
    Image.fromarray(smooth()).save(body, "JPEG")
    segment = b"Exif\0\0" + thumbnail.getvalue()
    header = b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment
    return body.getvalue()[:2] + header + body.getvalue()[2:]


@pytest.mark.parametrize("keep", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("progressive", [False, True])
def test_cut_off_jpeg_is_refused(tmp_path: Path, keep: float, progressive: bool) -> None:
    data = saved(tmp_path / "a.jpg", smooth(300, 400), quality=95, progressive=progressive).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ValueError, match=r"cut\.jpg.*cut off.*again"):
        read_image(tmp_path / "cut.jpg")


def test_the_end_marker_of_a_thumbnail_does_not_hide_a_cut(tmp_path: Path) -> None:
    data = jpeg_with_thumbnail()
    (tmp_path / "whole.jpg").write_bytes(data)
    assert read_image(tmp_path / "whole.jpg").shape == (60, 80, 3)
    (tmp_path / "cut.jpg").write_bytes(data[:-40])
    with pytest.raises(ValueError, match="cut off"):
        read_image(tmp_path / "cut.jpg")


@pytest.mark.parametrize("tail", [b"\0" * 30, b"preview\xff\xd8\xff\xe0", b"\xff\xd9"])
@pytest.mark.parametrize("progressive", [False, True])
def test_bytes_after_the_jpeg_are_tolerated(tmp_path: Path, tail: bytes, progressive: bool) -> None:
    path = saved(tmp_path / "a.jpg", smooth(), progressive=progressive)
    expected = read_image(path)
    path.write_bytes(path.read_bytes() + tail)
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_other_cut_off_images_are_refused(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"a.{suffix}", smooth())
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=rf"a\.{suffix}.*(damaged|cut off)"):
        read_image(path)


@pytest.mark.parametrize("reader", [read_image, read_label_map])
@pytest.mark.parametrize(
    "content, reason", [(b"", "empty"), (None, "cannot be read"), (b"hello", r"(decoded|must be a PNG)")]
)
def test_missing_empty_and_foreign_files_are_refused(tmp_path: Path, reader, content, reason: str) -> None:  # type: ignore[no-untyped-def]
    if content is not None:
        (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad\.png.*{reason}"):
        reader(tmp_path / "bad.png")


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_palette_labels_give_indices_not_colours(tmp_path: Path, bits: int) -> None:
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4) % min(2**bits, 11)
    image = Image.fromarray(ids).convert("L")
    image.putpalette([value for i in range(256) for value in (255 - i, i // 2, 7)])
    image.save(tmp_path / "p.png", bits=bits)
    np.testing.assert_array_equal(read_label_map(tmp_path / "p.png"), ids)


def test_one_bit_labels_are_zero_and_one(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    Image.fromarray(ids.astype(bool)).save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "p.png"), ids)


def test_16_bit_labels_are_read_when_they_fit(tmp_path: Path) -> None:
    ids = np.array([[0, 18, 255]], np.uint16)
    cv2.imwrite(str(tmp_path / "p.png"), ids)
    np.testing.assert_array_equal(read_label_map(tmp_path / "p.png"), ids)
    cv2.imwrite(str(tmp_path / "p.png"), ids * 2)
    with pytest.raises(ValueError, match=r"p\.png: 16-bit.*510"):
        read_label_map(tmp_path / "p.png")


@pytest.mark.parametrize("channels, kind", [(3, "RGB"), (4, "RGBA"), (2, "grey . alpha")])
def test_colour_label_maps_are_refused(tmp_path: Path, channels: int, kind: str) -> None:
    path = saved(tmp_path / "p.png", np.zeros((4, 4, channels), np.uint8))
    with pytest.raises(ValueError, match=rf"p\.png.*this PNG is {kind}.*grey PNG"):
        read_label_map(path)


@pytest.mark.parametrize("palette", [False, True])
def test_no_cut_of_a_label_map_gets_through(tmp_path: Path, palette: bool) -> None:
    image = Image.fromarray(smooth(20, 30)[..., 0])
    if palette:
        image.putpalette(list(range(256)) * 3)
    image.save(tmp_path / "p.png")
    data = (tmp_path / "p.png").read_bytes()
    for length in range(0, len(data) - 20, 13):  # the last bytes are the end chunk, which decoders do not need
        (tmp_path / "p.png").write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"p\.png"):
            read_label_map(tmp_path / "p.png")


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_a_tiff_is_read_turned_and_its_header_says_that_size(tmp_path: Path, turn: int) -> None:
    path = saved(tmp_path / "a.tif", smooth(), tiffinfo={274: turn})
    with Image.open(path) as image:
        assert shown_size(image) == read_image(path).shape[:2] == ((80, 60) if turn > 4 else (60, 80))
