from script.input_tables import README, readme_with_tables


def test_the_tables_of_inputs_are_those_of_the_doors():
    text = README.read_text(encoding="utf-8")
    # to renew them: python -m script.input_tables
    assert readme_with_tables(text) == text


def test_every_file_of_the_tree_in_the_readme_exists():
    tree = README.read_text(encoding="utf-8").split("```\ntrain.py")[1].split("```")[0]
    folders = {0: README.parent}  # by depth
    for line in ("train.py" + tree).splitlines():
        if not line.strip():
            continue
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        path = folders[depth] / name
        assert path.exists(), line
        folders[depth + 1] = path


def test_every_module_of_the_packages_is_in_the_tree_of_the_readme():
    text = README.read_text(encoding="utf-8")
    for package in ("preprocess", "trainer", "inference", "sdxl"):
        for path in (README.parent / package).rglob("*.py"):
            assert path.name == "__init__.py" or f"  {path.name} " in text, path
