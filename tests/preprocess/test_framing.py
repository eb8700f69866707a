import pytest

from preprocess.framing import bucket, plan_frame, square


@pytest.mark.parametrize(
    ("original", "resized", "corner"),
    [
        ((3000, 4000), (768, 1024), (0, 128)),
        ((4000, 3000), (1024, 768), (128, 0)),
        ((768, 768), (768, 768), (0, 0)),
        ((100, 201), (768, 1544), (0, 388)),
        ((1, 1), (768, 768), (0, 0)),
    ],
)
def test_the_short_side_is_scaled_to_the_target_and_the_long_one_cropped(
    original: tuple[int, int], resized: tuple[int, int], corner: tuple[int, int]
) -> None:
    frame = plan_frame(original, square(768))
    assert frame.resized_size == resized
    assert frame.target_size == (768, 768)
    assert frame.crop_top_left() == corner


@pytest.mark.parametrize(
    ("center", "corner"),
    [((50.0, 150.0), (0, 100)), ((50.0, 0.0), (0, 0)), ((50.0, 299.0), (0, 200))],
)
def test_a_crop_follows_its_center_as_far_as_the_edges_allow(
    center: tuple[float, float], corner: tuple[int, int]
) -> None:
    assert plan_frame((200, 600), square(100)).crop_top_left(center) == corner


@pytest.mark.parametrize(
    ("original", "resolution", "target"),
    [
        ((3000, 4000), 1024, (896, 1152)),
        ((4000, 3000), 1024, (1152, 896)),
        ((1000, 1000), 1024, (1024, 1024)),
        ((500, 4000), 1024, (512, 2048)),
        ((3000, 4000), 768, (672, 864)),
        ((3000, 4000), 128, (112, 144)),
    ],
)
def test_buckets_are_sdxl_sizes_scaled_to_the_resolution(
    original: tuple[int, int], resolution: int, target: tuple[int, int]
) -> None:
    assert bucket(original, resolution) == target


@pytest.mark.parametrize("resolution", [64, 128, 512, 768, 1000, 1024])
def test_a_frame_covers_its_bucket_and_touches_it_on_one_side(resolution: int) -> None:
    for original in [(120, 77), (77, 120), (1000, 999), (4001, 311), (640, 480)]:
        target = bucket(original, resolution)
        frame = plan_frame(original, target)
        assert target[0] % 8 == target[1] % 8 == 0
        assert frame.resized_size[0] >= target[0]
        assert frame.resized_size[1] >= target[1]
        assert frame.resized_size[0] == target[0] or frame.resized_size[1] == target[1]
