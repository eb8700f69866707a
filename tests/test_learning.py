import pytest

from bench import fidelity


@pytest.mark.slow
def test_the_pocket_base_learns_a_subject_it_never_saw(capsys: pytest.CaptureFixture[str]):
    """3 dB above the base's own toys, settings kept, loss on unseen views down by a fifth."""
    healthy = fidelity.main(["robot", "--seeds", "0"])
    assert healthy == 0, capsys.readouterr().out
