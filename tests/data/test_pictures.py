"""Image files of every usual mode become upright RGB or grey pictures of 8 bits."""

import io

import numpy as np
import pytest
from PIL import Image

from recon_search.data.pictures import extensions, read_picture, read_size
from recon_search.data.transforms import decode
from recon_search.errors import DataError
from tests.data.files import encoded, picture


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def pixels(content, channels=3):
    return np.asarray(read_picture(content, "it", channels))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK", "RGBA", "LA"])
def test_any_mode_becomes_rgb_or_grey(mode, channels):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    found = read_picture(saved(picture().convert(mode), kind), "it", channels)
    assert found.mode == {1: "L", 3: "RGB"}[channels]
    assert found.size == (9, 8)


def test_what_is_stored_in_rgb_is_read_as_it_is():
    assert np.array_equal(pixels(encoded(3)), np.asarray(picture(3)))


def test_the_upper_8_of_16_bits_are_kept():
    deep = np.arange(0, 65536, 257 * 5, dtype=np.uint16).reshape(4, 13)
    found = pixels(saved(Image.fromarray(deep)), channels=1)
    assert np.array_equal(found, deep >> 8)
    assert np.array_equal(pixels(saved(Image.fromarray(deep)))[..., 2], deep >> 8)


def test_what_is_transparent_is_laid_on_white():
    clear = Image.new("RGBA", (2, 1), (200, 0, 0, 0))
    clear.putpixel((1, 0), (200, 0, 0, 255))
    assert pixels(saved(clear)).tolist() == [[[255, 255, 255], [200, 0, 0]]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    content = saved(palette, transparency=bytes([0, 255]))
    assert pixels(content).tolist() == [[[255, 255, 255], [40, 50, 60]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright_and_their_size_is_known_before(orientation):
    """The corner that EXIF data call the top left is the top left."""
    image = Image.new("L", (6, 4), 0)
    corner = {
        1: (0, 0),
        2: (5, 0),
        3: (5, 3),
        4: (0, 3),
        5: (0, 0),
        6: (0, 3),
        7: (5, 3),
        8: (5, 0),
    }
    image.putpixel(corner[orientation], 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(image, exif=exif)
    found = pixels(content, channels=1)
    assert found[0, 0] == 255
    assert read_size(content, "it") == found.shape == ((4, 6) if orientation < 5 else (6, 4))


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 3), (5, 4, 4)])
def test_pixels_are_taken_as_they_are(shape):
    given = np.full(shape, 255, dtype=np.uint8)
    given[0, 0] = [7, 7, 7, 255][: shape[2]] if len(shape) == 3 else 7
    assert pixels(given).shape == (5, 4, 3)
    assert pixels(given)[0, 0].tolist() == [7, 7, 7]


TRUNCATED = {kind: encoded(1, kind, size=(64, 64))[:-900] for kind in ("PNG", "JPEG", "BMP")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "photo must be an image, it is empty"),
        (b"not an image at all", "photo must be an image, it is none that Pillow knows"),
        (encoded(0)[:20], "photo must be an image, it"),
        *(
            (content, "photo must be a whole image, it does not decode")
            for content in TRUNCATED.values()
        ),
        (saved(Image.fromarray(np.zeros((3, 3), np.float32)), "TIFF"), "floating-point"),
        (np.zeros((2, 3, 5), np.uint8), r"photo must hold whole numbers .*found uint8 \(2, 3, 5\)"),
        (np.zeros((0, 3), np.uint8), "photo must hold whole numbers"),
    ],
)
def test_what_does_not_decode_is_one_line_that_names_it(content, message):
    with pytest.raises(DataError, match=message) as error:
        read_picture(content, "photo", 3)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("times", [1.5, 3])
def test_images_of_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch, times):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(72 / times))
    with pytest.raises(DataError, match=r"photo must have at most \d+ pixels"):
        read_picture(encoded(), "photo", 3)
    with pytest.raises(DataError, match=r"photo must have at most \d+ pixels"):
        read_size(encoded(), "photo")


def test_a_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(DataError, match=r"photo must be readable, it is not \(No such file"):
        read_picture(tmp_path / "gone.png", "photo", 3)


def test_the_usual_extensions_are_known():
    assert {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"} <= extensions()
    assert not {".txt", ".csv", ".db", ""} & extensions()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "CMYK", "1", "I;16"])
def test_pil_images_of_one_s_own_are_converted_like_files(mode, channels):
    """So a network that is trained on files predicts for images that are open alike."""
    image = picture().convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    with Image.open(io.BytesIO(saved(image, kind))) as opened:
        own = np.asarray(decode(opened, channels))
    assert np.array_equal(own, pixels(saved(image, kind), channels))
