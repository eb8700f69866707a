import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdxl.concept import Concept, expand
from sdxl.prompt_weights import WeightedText, read_weights


def weights(prompt: str) -> list[tuple[str, float]]:
    return [(piece.text, pytest.approx(piece.weight)) for piece in read_weights(prompt)]


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a photo (close-up), Canon 5D--, C++",
        "((a red ball))",
        "(a red ball) on the beach",
        "a (red ball",
        "a red ball:1.3)",
        "(red:)",
        "(red:bright)",
        "(red:1.3 ball)",
        "(:1.3)",
        "( :1.3)",
        "a smile :) and :(",
        "widescreen (16:9), (at 5:30)",
        "(3:2)",
        r"\(^o^)/ of C:\(new)",
        r"\(red:1.3\)",
        "red ball:1.3",
        "[red:1.3] {ball:1.2}",
    ],
)
def test_what_is_no_group_with_a_number_is_text_as_it_stands(prompt: str):
    assert read_weights(prompt) == [WeightedText(prompt, 1.0)]


@given(st.text(alphabet="ab ()\\,.+-:<>"))
@settings(max_examples=200, deadline=None)
def test_a_prompt_without_digits_is_text_as_it_stands(prompt: str):
    assert read_weights(prompt) == [WeightedText(prompt, 1.0)]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a (red:1.3) ball", [("a ", 1), ("red", 1.3), (" ball", 1)]),
        ("(a red ball:0)", [("a red ball", 0)]),
        ("(red:.5)(ball:+2.)", [("red", 0.5), ("ball", 2)]),
        ("(red : 1.3 ) ball", [("red ", 1.3), (" ball", 1)]),
        ("(a (red:1.2) ball:1.5)", [("a ", 1.5), ("red", 1.8), (" ball", 1.5)]),
        ("((red:3):0.5)", [("red", 1.5)]),
        ("(a (big) ball:1.2)", [("a (big) ball", 1.2)]),
        ("(a (red:1.2) ball)", [("(a ", 1), ("red", 1.2), (" ball)", 1)]),
        ("(a (red:1.2)", [("(a ", 1), ("red", 1.2)]),
        ("a (red:1.2)) ball", [("a ", 1), ("red", 1.2), (") ball", 1)]),
        (":) (red:1.2) :(", [(":) ", 1), ("red", 1.2), (" :(", 1)]),
        (r"(saber \(fate\):1.2) \(red\)", [("saber (fate)", 1.2), (" (red)", 1)]),
        (r"(a \(red:1.3\) ball:1.2)", [("a (red:1.3) ball", 1.2)]),
        ("(blade runner 2049:1.2)", [("blade runner 2049", 1.2)]),
        ("(<s0><s1>:1.3)", [("<s0><s1>", 1.3)]),
    ],
)
def test_a_group_with_a_number_has_that_weight(prompt: str, expected: list[tuple[str, float]]):
    assert weights(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "weight"),
    [
        ("a (red:2.1) ball", "2.1"),
        ("(red:-1)", "-1"),
        ("((red:1.5):1.5)", "2.25"),
        ("(red:7)", "7"),
    ],
)
def test_a_weight_out_of_range_is_an_error_that_names_the_input_and_the_words(
    prompt: str, weight: str
):
    expected = f"negative_prompt must have weights from 0 to 2, got {weight} for 'red'"
    with pytest.raises(ValueError, match=re.escape(expected)):
        read_weights(prompt, "negative_prompt")


def test_a_trigger_in_a_group_keeps_its_weight_when_it_is_expanded():
    prompt = expand("a (TOK:1.3), TOK", [Concept.with_vectors("TOK", 2)])
    assert weights(prompt) == [("a ", 1), ("<s0><s1>", 1.3), (", <s0><s1>", 1)]


def test_thousands_of_nested_brackets_are_read_at_once():
    assert weights("(" * 5000 + "red" + ":1)" * 5000) == [("red", 1)]
    assert len(read_weights("(" * 20_000 + ":" * 20_000)) == 1
