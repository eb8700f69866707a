import pytest

from preprocess.config import PreprocessConfig


def test_the_defaults_are_those_of_cog_sdxl() -> None:
    config = PreprocessConfig()
    assert config.resolution == 768
    assert config.token_string == "TOK"
    assert config.caption_prefix == "a photo of TOK, "
    assert config.mask_target_prompts is None
    assert config.crop_based_on_salience is True
    assert config.use_face_detection_instead is False
    assert config.clipseg_temperature == 1.0
    assert config.input_images_filetype == "infer"
    assert config.verbose is True


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"resolution": 500},
            "resolution must be a multiple of 8, got 500; the nearest one is 496",
        ),
        ({"resolution": 32}, "resolution must be from 64 to 2048, got 32"),
        ({"resolution": 4096}, "resolution must be from 64 to 2048, got 4096"),
        ({"token_string": ""}, "token_string must be a word without blanks at its ends"),
        ({"token_string": " TOK"}, "token_string must be a word .*, got ' TOK'"),
        ({"token_string": "T\nK"}, "token_string must be a word"),
        ({"input_images_filetype": "rar"}, "input_images_filetype must be one of infer, zip, tar"),
        ({"caption_model": "gpt"}, "caption_model must be one of blip, florence2, none; got 'gpt'"),
        ({"clipseg_temperature": 0.0}, "clipseg_temperature must be above 0, got 0.0"),
        ({"clipseg_temperature": float("nan")}, "clipseg_temperature must be above 0, got nan"),
        ({"mask_background_weight": 1.5}, "mask_background_weight must be from 0 to 1, got 1.5"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PreprocessConfig(**settings)


def test_the_default_prefix_says_the_token() -> None:
    assert PreprocessConfig(token_string="sks").resolved_caption_prefix == "a photo of sks, "


def test_a_prefix_of_the_users_own_is_left_alone() -> None:
    config = PreprocessConfig(token_string="sks", caption_prefix="TOK TV, ")
    assert config.resolved_caption_prefix == "TOK TV, "


def test_a_blank_mask_prompt_is_none() -> None:
    assert PreprocessConfig(mask_target_prompts=" ").mask_prompt is None


def test_class_pictures_are_prepared_alike_but_whole_and_without_captions() -> None:
    config = PreprocessConfig(
        resolution=512,
        mask_target_prompts="a face",
        use_face_detection_instead=True,
        token_map="TOK:1,HAT:1",
        aspect_ratio_buckets=True,
        input_images_filetype="tar",
    )
    assert config.for_class_images() == PreprocessConfig(
        resolution=512, autocaption=False, aspect_ratio_buckets=True
    )


def test_the_default_prefix_says_the_main_word_of_a_map() -> None:
    config = PreprocessConfig(token_map="DOG:2,HAT:2", token_string="HAT")
    assert config.triggers == ("HAT", "DOG")
    assert config.resolved_caption_prefix == "a photo of HAT, "
