import pytest

from sdxl.concept import Concept, expand, occurs, read_concepts

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


def test_without_a_map_there_is_one_concept_of_two_vectors():
    (concept,) = read_concepts("sks")
    assert concept == Concept(trigger="sks", placeholder_tokens=("<s0>", "<s1>"))


def test_a_map_gives_each_trigger_its_own_vectors_and_the_main_one_comes_first():
    first, second = read_concepts("HAT", "DOG:2, HAT:3")
    assert first == Concept(trigger="HAT", placeholder_tokens=("<s2>", "<s3>", "<s4>"))
    assert second == Concept(trigger="DOG", placeholder_tokens=("<s0>", "<s1>"))
    assert expand("a DOG with a HAT", [first, second]) == "a <s0><s1> with a <s2><s3><s4>"


def test_the_default_token_need_not_be_in_the_map():
    assert [c.trigger for c in read_concepts("TOK", "DOG:1,HAT:1")] == ["DOG", "HAT"]


@pytest.mark.parametrize(
    ("token_map", "message"),
    [
        ("TOK", "token_map must be triggers with their numbers of vectors, from 1 to 32"),
        ("TOK:0", "token_map must be triggers"),
        ("TOK:33", "token_map must be triggers"),
        ("TOK:two", "token_map must be triggers"),
        ("TOK:2,,HAT:2", "token_map must be triggers"),
        ("TOK:2,TOK:3", "token_map must name each trigger once"),
        (":2", "token_string must be a word"),
    ],
)
def test_a_map_of_another_form_is_refused(token_map: str, message: str):
    with pytest.raises(ValueError, match=message):
        read_concepts("TOK", token_map)


def test_a_token_that_the_map_lacks_is_refused():
    with pytest.raises(ValueError, match=r"token_string is 'sks', which token_map 'DOG:2'"):
        read_concepts("sks", "DOG:2")


@pytest.mark.parametrize("trigger", ["", " TOK", "<s0>"])
def test_a_trigger_that_cannot_work_is_refused_by_its_input_name(trigger: str):
    with pytest.raises(ValueError, match="token_string"):
        Concept.with_vectors(trigger, 2)
