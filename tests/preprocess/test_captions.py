import pytest

from preprocess.captions import make_caption, with_token


def test_a_missing_token_is_put_in_front() -> None:
    assert with_token("a robot in Tokyo", "TOK") == "TOK, a robot in Tokyo"
    assert with_token("a TOK robot", "TOK") == "a TOK robot"
    assert with_token("", "TOK") == "TOK"


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
