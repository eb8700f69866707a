import pytest

from sdxl.downloads.addresses import FileAddress, HubRepo, locate, shown

HUB = "https://huggingface.co"
COMMIT = "462165984030d82259a11f4367a4eed129e94a7b"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("owner/model", HubRepo("owner/model")),
        (f"{HUB}/owner/model", HubRepo("owner/model")),
        (f"{HUB}/owner/model/", HubRepo("owner/model")),
        ("huggingface.co/owner/model", HubRepo("owner/model")),
        ("https://hf.co/owner/model/tree/v1", HubRepo("owner/model", "v1")),
    ],
)
def test_a_repository_has_to_be_asked_for_its_files(name: str, place: HubRepo):
    assert locate(name, HUB) == place


@pytest.mark.parametrize(
    ("name", "url", "is_moving"),
    [
        ("owner/model/a.safetensors", f"{HUB}/owner/model/resolve/main/a.safetensors", True),
        ("o/m/my folder/a.tar", f"{HUB}/o/m/resolve/main/my%20folder/a.tar", True),
        (
            f"{HUB}/o/m/blob/main/a%20b.safetensors",
            f"{HUB}/o/m/resolve/main/a%20b.safetensors",
            True,
        ),
        (f"{HUB}/o/m/resolve/main/a.tar?download=true", f"{HUB}/o/m/resolve/main/a.tar", True),
        (f"{HUB}/o/m/blob/{COMMIT}/a.tar", f"{HUB}/o/m/resolve/{COMMIT}/a.tar", False),
        ("https://replicate.com/o/m", "https://replicate.com/o/m/_weights", True),
        ("replicate.com/o/m/", "https://replicate.com/o/m/_weights", True),
        ("https://replicate.com/o/m/_weights", "https://replicate.com/o/m/_weights", True),
        (
            "https://replicate.com/o/m/versions/12ab",
            "https://replicate.com/o/m/versions/12ab/_weights",
            False,
        ),
        (
            "https://replicate.com/o/m/12ab",
            "https://replicate.com/o/m/versions/12ab/_weights",
            False,
        ),
        (
            "https://replicate.com/o/m/versions/12ab/_weights",
            "https://replicate.com/o/m/versions/12ab/_weights",
            False,
        ),
        (
            "https://civitai.com/models/1/a-name?modelVersionId=2",
            "https://civitai.com/api/download/models/2",
            False,
        ),
        (
            "https://civitai.com/api/download/models/2?type=Model",
            "https://civitai.com/api/download/models/2?type=Model",
            False,
        ),
        ("https://example.com/a.tar?b=c", "https://example.com/a.tar?b=c", False),
        ("data:;base64,aGVsbG8=", "data:;base64,aGVsbG8=", False),
    ],
)
def test_the_page_of_a_model_becomes_the_address_of_its_file(name: str, url: str, is_moving: bool):
    assert locate(name, HUB) == FileAddress(url, is_moving)


def test_addresses_of_the_hub_go_to_its_mirror():
    assert locate(f"{HUB}/o/m/blob/main/a.tar", "https://mirror.org") == FileAddress(
        "https://mirror.org/o/m/resolve/main/a.tar", is_moving=True
    )


def test_a_page_at_civitai_without_a_version_asks_for_one():
    with pytest.raises(ValueError, match=r"civitai\.com/models/1/x is the page.*modelVersionId"):
        locate("https://civitai.com/models/1/x", HUB)


@pytest.mark.parametrize("name", ["a b/c", "model", "/no/such.safetensors", "o/m/a.ckpt", ""])
def test_a_name_of_nothing_says_what_there_is(name: str):
    with pytest.raises(ValueError, match=r"owner/model/file\.safetensors"):
        locate(name, HUB)


def test_what_is_shown_of_an_address_holds_no_secret():
    address = "https://me:secret@example.com:8080/a/b.tar?token=secret#secret"
    assert shown(address) == "https://example.com:8080/a/b.tar"
    assert len(shown("data:;base64," + "secret" * 100)) < 50
