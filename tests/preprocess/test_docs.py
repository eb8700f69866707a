import re
from pathlib import Path

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs" / "preprocessing.md"


def test_every_row_of_the_table_is_a_test() -> None:
    named = set(re.findall(r"`(test_\w+)`", DOCS.read_text("utf-8")))
    files = [*HERE.glob("test_*.py"), HERE.parent / "sdxl" / "test_decoding.py"]
    code = "\n".join(path.read_text("utf-8") for path in files)
    assert named
    assert named <= set(re.findall(r"^def (test_\w+)", code, re.MULTILINE))
