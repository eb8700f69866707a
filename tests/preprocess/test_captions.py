import pytest

from preprocess.captions import check_that_all_occur, make_caption, with_trigger


def test_a_missing_trigger_is_put_in_front() -> None:
    assert with_trigger("a robot in Tokyo", ["TOK"]) == "TOK, a robot in Tokyo"
    assert with_trigger("a TOK robot", ["TOK"]) == "a TOK robot"
    assert with_trigger("", ["TOK"]) == "TOK"


def test_any_of_several_triggers_will_do_and_the_main_one_is_put_in_front() -> None:
    assert with_trigger("a HAT on a table", ["TOK", "HAT"]) == "a HAT on a table"
    assert with_trigger("a table", ["TOK", "HAT"]) == "TOK, a table"


def test_a_trigger_that_no_caption_contains_is_named() -> None:
    check_that_all_occur(["TOK", "HAT"], ["TOK with a HAT"])
    with pytest.raises(ValueError, match=r"token_map names HAT, but no caption contains it"):
        check_that_all_occur(["TOK", "HAT"], ["TOK", "TOK with HATS"])


@pytest.mark.parametrize(
    ("prefix", "description", "suffix", "caption"),
    [
        ("a photo of TOK, ", "", "", "a photo of TOK"),
        ("a photo of TOK, ", "a red robot", "", "a photo of TOK, a red robot"),
        ("a photo of TOK, ", "a robot", ", studio light", "a photo of TOK, a robot, studio light"),
        ("a photo of TOK, ", "", "studio light", "a photo of TOK, studio light"),
        ("a photo of TOK, ", "", ", studio light", "a photo of TOK, studio light"),
        ("a photo of TOK", "", " in the style of X", "a photo of TOK in the style of X"),
        ("", "a  red\nrobot ", "", "a red robot"),
        ("", "", "", ""),
        ("", "", "in the rain", "in the rain"),
    ],
)  # fmt: skip
def test_captions_are_joined_without_stray_commas(
    prefix: str, description: str, suffix: str, caption: str
) -> None:
    assert make_caption(prefix, description, suffix) == caption
