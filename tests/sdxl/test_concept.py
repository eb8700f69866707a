import pytest

from sdxl.concept import Concept, expand, occurs

TOK = Concept.with_vectors("TOK", 2)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("a photo of TOK", "a photo of <s0><s1>"),
        ("TOK, TOK's hat", "<s0><s1>, <s0><s1>'s hat"),
        ("TOKYO, token, STOK, TOK_2, tok", "TOKYO, token, STOK, TOK_2, tok"),
        ("A Photo Of (TOK)", "A Photo Of (<s0><s1>)"),
    ],
)
def test_the_trigger_is_replaced_as_a_whole_word_and_the_rest_is_kept(text: str, expanded: str):
    assert expand(text, [TOK]) == expanded


def test_the_longest_trigger_comes_first():
    longer = Concept(trigger="TOK hat", placeholder_tokens=("<s2>",))
    assert expand("TOK and TOK hat", [TOK, longer]) == "<s0><s1> and <s2>"


def test_a_trigger_with_signs_in_it_is_found():
    sks = Concept.with_vectors("s.k(s)!", 1)
    assert expand("a s.k(s)! dog", [sks]) == "a <s0> dog"
    assert expand("a sxk(s)! dog", [sks]) == "a sxk(s)! dog"


def test_without_concepts_a_prompt_stays_as_it_is():
    assert expand("a photo of TOK", []) == "a photo of TOK"


@pytest.mark.parametrize(
    ("caption", "token", "is_there"),
    [
        ("a photo of TOK, on a hill", "TOK", True),
        ("TOK's hat", "TOK", True),
        ("TOKYO at night", "TOK", False),
        ("a tok", "TOK", False),
        ("<TOK> here", "<TOK>", True),
        ("made with C++", "C++", True),
        ("a b", "a.b", False),
    ],
)
def test_a_trigger_counts_as_a_whole_word_in_its_own_case(caption: str, token: str, is_there: bool):
    assert occurs(token, caption) is is_there


@pytest.mark.parametrize("trigger", ["", " TOK", "<s0>"])
def test_a_trigger_that_cannot_work_is_refused_by_its_input_name(trigger: str):
    with pytest.raises(ValueError, match="token_string"):
        Concept.with_vectors(trigger, 2)
