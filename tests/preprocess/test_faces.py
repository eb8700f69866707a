import pytest
from PIL import Image, ImageOps

from preprocess.faces import face_mask, find_faces
from tests.preprocess.files import DATA, picture

FACE = (177 - 60, 66, 273 - 60, 162)  # seen by eye in the crop, before it was scaled by 3/4


@pytest.fixture
def astronaut() -> Image.Image:
    with Image.open(DATA / "astronaut.jpg") as image:
        return image.convert("RGB")


@pytest.mark.parametrize("scale", [1, 3, 8])
def test_a_face_is_found_at_every_size(astronaut: Image.Image, scale: int) -> None:
    image = astronaut.resize((240 * scale, 180 * scale), Image.Resampling.BICUBIC)
    boxes = find_faces(image)
    assert len(boxes) == 1
    for edge, expected in zip(boxes[0], FACE, strict=True):
        assert edge / scale == pytest.approx(expected * 0.75, abs=8)


def test_two_faces_become_one_mask(astronaut: Image.Image) -> None:
    both = Image.new("RGB", (480, 180))
    both.paste(astronaut, (0, 0))
    both.paste(ImageOps.mirror(astronaut), (240, 0))
    boxes = find_faces(both)
    assert len(boxes) == 2
    mask = face_mask(both.size, boxes)
    assert (mask.mode, mask.size) == ("L", (480, 180))
    for left, top, right, bottom in boxes:
        assert mask.getpixel((round((left + right) / 2), round((top + bottom) / 2))) == 255
    assert mask.getpixel((240, 5)) == 0


def test_a_picture_without_a_face_has_none() -> None:
    assert find_faces(picture(300, 200)) == []
