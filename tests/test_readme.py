from script.input_tables import README, readme_with_tables


def test_the_tables_of_inputs_are_those_of_the_doors():
    text = README.read_text(encoding="utf-8")
    # to renew them: python -m script.input_tables
    assert readme_with_tables(text) == text


def test_every_file_of_the_tree_in_the_readme_exists():
    tree = README.read_text(encoding="utf-8").split("```\ntrain.py")[1].split("```")[0]
    folder = README.parent
    for line in ("train.py" + tree).splitlines():
        name = line.split()[0] if line.strip() else ""
        if name.endswith("/") and not line.startswith(" "):
            folder = README.parent / name
        path = folder / name if line.startswith("  ") else README.parent / name
        assert path.exists(), line
