"""Watching a training: TensorBoard's event file, and a run in Weights & Biases.

Both show the same curves, over the number of optimizer steps done: `loss`, and `lr/<group>` for
each parameter group.
"""

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from accelerate import PartialState
from accelerate.tracking import WandBTracker
from PIL import Image
from tensorboardX import RecordWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

logger = logging.getLogger(__name__)

# TensorBoard takes every file with `tfevents` in its name; usual names hold time and host
EVENTS_NAME = "tensorboard/events.out.tfevents.0.training"
STEPS_BETWEEN_RATES = 10

START_TIMEOUT_SECONDS = 30.0  # of the first contact with Weights & Biases
FINISH_TIMEOUT_SECONDS = 60.0  # for what is still to be sent when the training is over


def tensorboard_events(
    losses: Sequence[float], learning_rates: Mapping[str, Sequence[float]]
) -> bytes:
    """Return the curves as a file for TensorBoard, to be stored under `EVENTS_NAME`.

    Equal runs give equal bytes: the time of an event is its step, in seconds. Learning rates are
    smooth, so every tenth is enough: the file stays small.

    Args:
        losses: Of each step.
        learning_rates: Of each parameter group, at each step.
    """
    with tempfile.TemporaryDirectory(prefix="sdxl-events-") as directory:
        path = Path(directory) / "events"
        writer = RecordWriter(str(path))
        writer.write(Event(wall_time=0, file_version="brain.Event:2").SerializeToString())
        for step, scalars in enumerate(_scalars(losses, learning_rates), start=1):
            has_rates = step % STEPS_BETWEEN_RATES == 1 or step == len(losses)
            values = [
                Summary.Value(tag=tag, simple_value=x)
                for tag, x in scalars.items()
                if tag == "loss" or has_rates
            ]
            event = Event(wall_time=step, step=step, summary=Summary(value=values))
            writer.write(event.SerializeToString())
        writer.close()
        return path.read_bytes()


class WandbRun:
    """A run in Weights & Biases that is open; `wandb_run` makes it.

    What it sends goes out in the background. What cannot be sent is named in a warning: no failure
    of watching ends a training.
    """

    def __init__(self, tracker: WandBTracker) -> None:
        """Take over a tracker that was started."""
        self._tracker = tracker
        self._num_steps = 0
        self._is_lost = False

    def log_steps(
        self, losses: Sequence[float], learning_rates: Mapping[str, Sequence[float]]
    ) -> None:
        """Send the steps that were not sent yet.

        Args:
            losses: Of each step so far.
            learning_rates: Of each parameter group, at each step so far.
        """
        scalars = _scalars(losses, learning_rates)
        with self._outlived("losses"):
            for step in range(self._num_steps, len(losses)):
                self._tracker.log(scalars[step], step=step + 1)
        self._num_steps = len(losses)

    def log_pictures(self, pictures: Mapping[str, Sequence[Image.Image]]) -> None:
        """Send sample pictures, by their captions, as `samples` of the last step that was sent."""
        import wandb

        with self._outlived("sample pictures"):
            shown = [wandb.Image(p, caption=text) for text, ps in pictures.items() for p in ps]
            self._tracker.log({"samples": shown}, step=self._num_steps)

    def finish(self, exit_code: int) -> None:
        """Wait until everything is sent, `FINISH_TIMEOUT_SECONDS` at most.

        Args:
            exit_code: 0 marks the run as finished, 1 as failed.
        """
        with self._outlived("all of this run"):
            self._tracker.run.finish(exit_code=exit_code)

    @contextmanager
    def _outlived(self, what: str) -> Iterator[None]:
        import wandb

        try:
            yield
        except (OSError, wandb.Error) as error:
            if not self._is_lost:
                logger.warning(
                    "Weights & Biases did not get %s after step %d (%s). The training goes on.",
                    what,
                    self._num_steps,
                    _reason(error),
                )
            # to wandb's own process, for good; it deals with the network by itself
            self._is_lost |= isinstance(error, ConnectionError)


@contextmanager
def wandb_run(
    api_key: str,
    project: str,
    settings: Mapping[str, object],
    start_timeout_seconds: float = START_TIMEOUT_SECONDS,
) -> Iterator[WandbRun]:
    """Open a run in Weights & Biases, and finish it in any case.

    It gets what is logged and `settings`: no console output, code, host name or machine load. The
    key is neither written to a file nor left in the environment.

    Args:
        api_key: The input `wandb_api_key`.
        project: The input `wandb_project`.
        settings: Every input of the training as resolved, without the key.
        start_timeout_seconds: For the first contact.

    Raises:
        ValueError: Weights & Biases refused the key or the project, or cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="sdxl-wandb-") as directory:
        try:
            # wandb would report its errors to a third party, with the variables of the stack
            with _environment(WANDB_ERROR_REPORTING="false", WANDB_CACHE_DIR=directory):
                tracker = _start(api_key, project, settings, directory, start_timeout_seconds)
            run = WandbRun(tracker)
            try:
                yield run
            except BaseException:  # a canceled training too
                run.finish(exit_code=1)
                raise
            run.finish(exit_code=0)
        finally:
            _end_process()


def _start(
    api_key: str,
    project: str,
    settings: Mapping[str, object],
    directory: str,
    timeout_seconds: float,
) -> WandBTracker:
    import wandb  # takes a second: only trainings with a key pay for it

    PartialState()  # accelerate's trackers log through it
    try:
        # silent from the first line on; the key in here would undo WANDB_BASE_URL
        wandb.setup(wandb.Settings(silent=True, mode="online"))
        # not wandb.login, which writes the key to ~/.netrc
        options = wandb.Settings(
            api_key=api_key,
            silent=True,
            console="off",
            host="",
            program="",
            disable_code=True,
            disable_git=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
            x_skip_transaction_log=True,  # it would hold the key
            init_timeout=timeout_seconds,
            finish_timeout=FINISH_TIMEOUT_SECONDS,
            finish_timeout_raises=True,
        )
        tracker = WandBTracker(project, dir=directory, config=dict(settings), settings=options)
        tracker.start()
    except wandb.Error as error:
        raise ValueError(_refusal(error)) from error
    logger.info("Weights & Biases: %s", tracker.run.url)
    return tracker


def _refusal(error: Exception) -> str:
    return (
        f"wandb_api_key: Weights & Biases did not open a run ({_reason(error)}). Check the key "
        "(yours is at https://wandb.ai/authorize), wandb_project and the network, or leave "
        "wandb_api_key out to train without it."
    )


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")


def _end_process() -> None:
    """End wandb's own process, and make wandb forget the key."""
    import wandb

    with suppress(ConnectionError):  # it died before
        wandb.teardown()


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set environment variables for a while; wandb has settings that it takes from there only."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _scalars(
    losses: Sequence[float], learning_rates: Mapping[str, Sequence[float]]
) -> list[dict[str, float]]:
    assert all(len(rates) == len(losses) for rates in learning_rates.values())
    return [
        {"loss": loss, **{f"lr/{group}": rates[i] for group, rates in learning_rates.items()}}
        for i, loss in enumerate(losses)
    ]
