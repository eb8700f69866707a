"""Over random archives: every picture comes in, exactly once, or is named in an error."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.config import PreprocessConfig
from preprocess.prepare import preprocess
from tests.preprocess.files import encode, picture, png, write_folder, write_tar, write_zip

GOOD = {
    "png": png(20, 16),
    "jpg": encode(picture(16, 20), "JPEG"),
    "webp": encode(picture(16, 16), "WEBP"),
}
BAD = {"png": GOOD["png"][:60], "jpg": b"<html>", "webp": b""}
JUNK = ("__MACOSX/._a.png", ".DS_Store", "x/Thumbs.db")

folders = st.sampled_from(["", "x/", "X/", "x/y/", "M\u00e4rz 2024/", "a.png/"])
stems = st.sampled_from(["a", "b", "IMG 1", "\u732b", "1", "10", "a.b", "Gr\u00f6\u00dfe"])
suffixes = st.sampled_from(sorted(GOOD))
names = st.builds(lambda folder, stem, end: f"{folder}{stem}.{end}", folders, stems, suffixes)
trees = st.dictionaries(names, st.integers(0, 9), min_size=1, max_size=8)
writers = st.sampled_from([write_zip, write_tar, write_folder])


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(tree=trees, junk=st.sets(st.sampled_from(JUNK)), writer=writers)
def test_every_picture_comes_in_exactly_once_or_is_named(tree, junk: set[str], writer) -> None:
    # a folder cannot hold a file and a folder of one name
    names = [name for name in tree if not any(other.startswith(f"{name}/") for other in tree)]
    bad = {name for name in names if tree[name] == 0}
    members = {
        name: (BAD if name in bad else GOOD)[name.rpartition(".")[2]] for name in names
    } | dict.fromkeys(junk, b"x")
    config = PreprocessConfig(resolution=64, verbose=False, autocaption=False, upscale=False)
    with tempfile.TemporaryDirectory() as folder:
        archive = writer(Path(folder, "upload"), members)
        out = Path(folder, "out")
        if bad:
            with pytest.raises(ValueError, match="cannot be used") as raised:
                preprocess(archive, config, out)
            assert all(f"{name}: " in str(raised.value) for name in bad)
            assert list(out.iterdir()) == []
            return
        manifest = preprocess(archive, config, out)
        assert sorted(example.source_name for example in manifest.examples) == sorted(names)
        assert len({example.example_id for example in manifest.examples}) == len(names)
        assert len(list((out / "images").iterdir())) == len(names)
