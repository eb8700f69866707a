"""The runner with the real Cog server and the echo doors."""

import io
import signal
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.script.conftest import ROOT, Run, command, environment, processes_in


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "my pictures.zip"
    path.write_bytes(b"0123456789")
    return path


def test_train_saves_the_weights_and_the_report_beside_them(
    run: Run, archive: Path, tmp_path: Path
) -> None:
    target = tmp_path / "new folder" / "robot.tar"
    result = run("train", "-i", f"input_images=@{archive}", "-i", "steps=7", "-o", target)
    assert result.returncode == 0, result.stderr
    assert target.read_bytes() == b"weights"
    report = target.with_name("robot_report.html")
    assert report.read_text() == "<p>report</p>"
    assert result.stdout.split("\n") == [str(target), str(report), ""]


def test_train_streams_the_log_of_the_door(run: Run, archive: Path, tmp_path: Path) -> None:
    result = run(
        "train",
        *("-i", f"input_images=@{archive}", "-i", "steps=7", "-i", "lora_lr=1e-3"),
        *("-i", "verbose=false", "-i", "note=a=b", "-o", tmp_path / "w.tar"),
    )
    assert "my_pictures.zip 10 b'0123'" in result.stderr.replace("my pictures", "my_pictures")
    assert "settings 7 0.001 work False a=b\n" in result.stderr
    assert "| 7/7 [" in result.stderr
    assert '"timestamp"' not in result.stderr
    assert "deprecated" not in result.stderr


def test_a_folder_is_zipped_on_the_way(run: Run, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    (pictures / "sub").mkdir(parents=True)
    (pictures / "sub" / "a.png").write_bytes(b"a")
    result = run("train", "-i", f"input_images=@{pictures}", "-o", tmp_path / "w.tar")
    assert result.returncode == 0, result.stderr
    assert "pictures.zip" in result.stderr
    assert r"b'PK\x03\x04'" in result.stderr


def test_an_archive_above_the_server_s_limit_for_requests_arrives(run: Run, tmp_path: Path) -> None:
    archive = tmp_path / "large.zip"
    with archive.open("wb") as file:
        file.truncate(80 << 20)
    result = run("train", "-i", f"input_images=@{archive}", "-o", tmp_path / "w.tar")
    assert result.returncode == 0, result.stderr
    assert f"large.zip {80 << 20} " in result.stderr


def test_instance_dir_names_the_pictures(run: Run, archive: Path, tmp_path: Path) -> None:
    target = tmp_path / "w.tar"
    result = run("train", "-o", target, INSTANCE_DIR=str(archive.parent))
    assert result.returncode == 0, result.stderr
    assert r"b'PK\x03\x04'" in result.stderr
    result = run("train", "-o", target)
    assert result.returncode == 1
    assert "error: input input_images is missing: give -i input_images=@" in result.stderr
    assert "INSTANCE_DIR" in result.stderr


def test_a_value_that_the_schema_refuses_names_its_input(
    run: Run, archive: Path, tmp_path: Path
) -> None:
    result = run(
        "train",
        *("-i", f"input_images=@{archive}", "-i", "steps=0", "-i", "lora_lr=fast"),
        *("-i", "behavior=dance", "-o", tmp_path / "w.tar"),
    )
    assert result.returncode == 1
    assert "input steps: 0 is less than the minimum of 1" in result.stderr
    assert 'input lora_lr: "fast" is not of type "number"' in result.stderr
    assert 'input behavior: "dance" is not one of ["work","raise",' in result.stderr
    assert not (tmp_path / "w.tar").exists()


def test_an_unknown_input_is_an_error_that_suggests_a_name(
    run: Run, archive: Path, tmp_path: Path
) -> None:
    result = run("train", "-i", f"input_image=@{archive}", "-o", tmp_path / "w.tar")
    assert result.returncode == 1
    assert "error: there is no input 'input_image': did you mean input_images?" in result.stderr


@pytest.mark.parametrize(
    ("behavior", "text"),
    [
        ("raise", "error: steps must be even, got 3\n"),
        ("die", "error: the process of the model has died, perhaps for lack of memory\n"),
    ],
)
def test_a_failing_training_gives_its_error_and_exit_code_1(
    run: Run, archive: Path, tmp_path: Path, behavior: str, text: str
) -> None:
    target = tmp_path / "w.tar"
    result = run(
        "train", "-i", f"input_images=@{archive}", "-i", f"behavior={behavior}", "-o", target
    )
    assert result.returncode == 1
    assert result.stderr.endswith(text)
    assert not target.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_cancels_the_training(
    doors: Path, archive: Path, tmp_path: Path, number: signal.Signals
) -> None:
    target = tmp_path / "w.tar"
    arguments = ["-i", f"input_images=@{archive}", "-i", "behavior=sleep", "-o", target]
    with subprocess.Popen(
        command("train", "--doors", doors, *arguments),
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert isinstance(process.stderr, io.TextIOWrapper)
        log = ""
        while "at work" not in log:
            log += process.stderr.readline()
        assert processes_in(doors)
        process.send_signal(number)
        log += process.stderr.read()
    assert process.returncode == 130
    assert "the door was canceled" in log
    assert processes_in(doors) == []
    assert not target.exists()


def test_predict_saves_every_picture(run: Run, archive: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.tar"
    weights.touch()
    result = run(
        "predict",
        *("-w", weights, "-i", "prompt=a photo of TOK", "-i", "num_outputs=2"),
        *("-i", f"image=@{archive}", "-o", tmp_path / "out"),
        COG_WEIGHTS="/not/this/one",
    )
    assert result.returncode == 0, result.stderr
    assert f"setup with {weights}" in result.stderr
    pictures = [tmp_path / "out" / f"out-{number}.png" for number in range(2)]
    assert result.stdout.split() == [str(path) for path in pictures]
    for path in pictures:
        assert path.read_text() == f"draw|a photo of TOK|{weights}|0123456789"


def test_predict_without_weights_serves_the_base(run: Run, tmp_path: Path) -> None:
    result = run("predict", "-o", tmp_path / "out", COG_WEIGHTS="/not/this/one")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "out-0.png").read_text() == "draw|a photo|None|None"


def test_a_place_that_cannot_hold_the_result_is_reported_before_anything_starts(
    run: Run, archive: Path
) -> None:
    result = run("train", "-i", f"input_images=@{archive}", "-o", archive / "w.tar")
    assert result.returncode == 1
    assert f"error: -o {archive}/w.tar: cannot make {archive} (" in result.stderr
    assert "starting" not in result.stderr


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("broken.tar", "error: predict.py:Predictor cannot start: broken.tar holds no weights\n"),
        ("deadly.tar", "error: predict.py:Predictor cannot start: worker crashed\n"),
    ],
)
def test_a_failing_setup_is_reported(run: Run, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).touch()
    result = run("predict", "-w", tmp_path / name, "-o", tmp_path / "out")
    assert result.returncode == 1
    assert result.stderr.endswith(text)


def test_missing_weights_are_reported_before_anything_starts(run: Run, tmp_path: Path) -> None:
    result = run("predict", "-w", tmp_path / "none.tar", "-o", tmp_path / "out")
    assert result.returncode == 1
    assert f"error: there are no weights {tmp_path}/none.tar" in result.stderr
    assert "starting" not in result.stderr


def test_a_door_that_cannot_be_imported_is_reported(run: Run, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import nothing_of_this_name\n")
    result = run("train", "-i", "input_images=@x", "-o", tmp_path / "w.tar", doors_dir=tmp_path)
    assert result.returncode == 1
    assert "the doors cannot be imported: ImportError: " in result.stderr
    assert "nothing_of_this_name" in result.stderr


def test_a_missing_door_is_reported(run: Run, tmp_path: Path) -> None:
    result = run("predict", "-o", tmp_path / "out", doors_dir=tmp_path)
    assert result.returncode == 1
    assert f"error: there is no predict.py in {tmp_path}" in result.stderr


def test_inputs_lists_names_types_and_defaults(run: Run) -> None:
    result = run("train", "--inputs")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[:2] == [
        "input_images (file, required): Any file.",
        "steps (integer, default 3): How many.",
    ]
    assert 'behavior (work|raise|die|sleep, default "work")' in result.stdout


def test_the_zip_of_a_folder_holds_no_hidden_files(tmp_path: Path) -> None:
    from script.local_cog.inputs import zip_folder

    source = tmp_path / "pictures"
    (source / ".cache").mkdir(parents=True)
    for name in ("b.png", "a.txt", ".DS_Store", ".cache/c.png"):
        (source / name).write_text(name)
    with zipfile.ZipFile(zip_folder(source, tmp_path)) as archive:
        assert archive.namelist() == ["a.txt", "b.png"]
