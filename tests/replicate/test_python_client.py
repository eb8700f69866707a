"""Replicate's Python client against the stand-in: the two doors under real Cog servers."""

import io
import json
import tarfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from PIL import Image
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError
from replicate.prediction import Prediction
from replicate.training import Training
from replicate.webhook import Webhooks

from tests.replicate.conftest import TINY_PICTURE, TINY_TRAINING
from tests.replicate.receiver import Received, WebhookReceiver
from tests.replicate.stand_in.server import StandIn

pytestmark = pytest.mark.xdist_group("replicate")

ALL_EVENTS = ["start", "output", "logs", "completed"]


def trainer(stand_in: StandIn) -> str:
    return f"you/sdxl-trainer:{stand_in.trainer.version_id}"


def is_over(training: Training) -> bool:
    return training.status in ("succeeded", "failed", "canceled")


def poll(training: Training, until: Callable[[Training], bool] = is_over) -> list[Training]:
    """Reload until a condition holds; return what was seen on the way."""
    seen = [training.copy()]
    deadline = time.monotonic() + 120
    while not until(training):
        assert time.monotonic() < deadline, training
        assert not is_over(training), training
        time.sleep(0.1)
        training.reload()
        seen.append(training.copy())
    return seen


def progress(training: Training) -> Prediction.Progress | None:
    return Prediction.Progress.parse(training.logs or "")


def picture(output: object) -> Image.Image:
    assert isinstance(output, list)
    return Image.open(io.BytesIO(output[0].read()))


@dataclass(frozen=True)
class FineTune:
    """A training that has succeeded, as its client saw it."""

    training: Training
    seen: list[Training]
    webhooks: list[Received]


@pytest.fixture(scope="module")
def fine_tune(client: Client, stand_in: StandIn, pictures_zip: Path) -> FineTune:
    client.models.create("you", "my-robot", visibility="private", hardware="gpu-l40s")
    with WebhookReceiver() as receiver, pictures_zip.open("rb") as archive:
        training = client.trainings.create(
            version=trainer(stand_in),
            destination="you/my-robot",
            input={"input_images": archive, **TINY_TRAINING},
            webhook=receiver.address,
            webhook_events_filter=ALL_EVENTS,
        )
        seen = poll(training)
        return FineTune(training, seen, receiver.wait_for('"completed_at"'))


def test_a_training_goes_from_starting_to_succeeded(fine_tune: FineTune) -> None:
    statuses = [training.status for training in fine_tune.seen]
    assert statuses[0] == "starting"
    assert statuses[-1] == "succeeded", fine_tune.training.error
    assert sorted(statuses, key=["starting", "processing", "succeeded"].index) == statuses
    training = fine_tune.training
    assert training.created_at < training.started_at < training.completed_at
    assert training.error is None


def test_the_client_parses_the_progress_from_the_log(fine_tune: FineTune) -> None:
    assert progress(fine_tune.training) == Prediction.Progress(1.0, 4, 4)
    percentages = [p.percentage for t in fine_tune.seen if (p := progress(t))]
    assert percentages == sorted(percentages)
    assert "10 images, 4 steps of 1 (lora)" in fine_tune.training.logs


def test_the_weights_are_a_new_version_of_the_destination(
    fine_tune: FineTune, client: Client
) -> None:
    output = fine_tune.training.output
    model = client.models.get("you/my-robot")
    assert model.latest_version is not None
    assert output["version"] == f"you/my-robot:{model.latest_version.id}"
    assert [version.id for version in model.versions.list()] == [model.latest_version.id]
    inputs = model.latest_version.openapi_schema["components"]["schemas"]["Input"]["properties"]
    assert inputs["prompt"]["type"] == "string"
    weights = httpx.get(output["weights"]).raise_for_status().content
    with tarfile.open(fileobj=io.BytesIO(weights)) as archive:
        assert {"lora.safetensors", "embeddings.pti"} <= set(archive.getnames())
    assert httpx.get(output["report"]).raise_for_status().text.startswith("<!doctype html>")


def test_webhooks_tell_start_logs_output_and_end(fine_tune: FineTune) -> None:
    bodies = [Training(**json.loads(webhook.body)) for webhook in fine_tune.webhooks]
    assert (bodies[0].status, bodies[0].logs) == ("processing", "")
    logs = [body.logs or "" for body in bodies]
    assert logs == sorted(logs, key=len)
    assert len(set(logs)) > 1
    assert bodies[-1].status == "succeeded"
    assert bodies[-1].dict() == fine_tune.training.dict(exclude={"destination"}) | {
        "destination": None
    }


def test_webhooks_are_signed_with_the_account_s_secret(fine_tune: FineTune, client: Client) -> None:
    secret = client.webhooks.default.secret()
    for webhook in fine_tune.webhooks:
        Webhooks.validate(headers=webhook.headers, body=webhook.body, secret=secret, tolerance=120)
    last = fine_tune.webhooks[-1]
    forged = last.body.replace("succeeded", "failed")
    with pytest.raises(ValueError, match="signature is invalid"):
        Webhooks.validate(headers=last.headers, body=forged, secret=secret)


def test_run_draws_with_the_weights_of_the_version(fine_tune: FineTune, client: Client) -> None:
    def draw(**inputs: object) -> Image.Image:
        given = {"prompt": "a photo of TOK", "seed": 1, "lora_scale": 1} | TINY_PICTURE | inputs
        return picture(client.run(fine_tune.training.output["version"], input=given))

    drawn = draw()
    assert drawn.size == (64, 64)
    assert drawn.tobytes() == draw().tobytes()
    assert drawn.tobytes() != draw(lora_scale=0).tobytes()


def test_a_prediction_that_fails_raises_with_our_text(fine_tune: FineTune, client: Client) -> None:
    with pytest.raises(ModelError, match="aspect_ratio=1:1 decides the size: leave width and"):
        client.run(
            fine_tune.training.output["version"], input={**TINY_PICTURE, "aspect_ratio": "1:1"}
        )


def test_without_a_filter_only_output_and_end_are_told(
    fine_tune: FineTune, client: Client, receiver: WebhookReceiver
) -> None:
    prediction = client.predictions.create(
        version=fine_tune.training.output["version"],
        input=TINY_PICTURE,
        webhook=receiver.address,
    )
    prediction.wait()
    bodies = [json.loads(webhook.body) for webhook in receiver.wait_for('"completed_at"')]
    assert [body["status"] for body in bodies] == ["processing", "succeeded"]
    assert bodies[0]["output"] == bodies[1]["output"] == prediction.output
    assert bodies[1]["metrics"]["predict_time"] > 0


def test_the_client_parses_the_progress_of_a_prediction(
    fine_tune: FineTune, client: Client
) -> None:
    prediction = client.predictions.create(
        version=fine_tune.training.output["version"], input=TINY_PICTURE
    )
    prediction.wait()
    steps = TINY_PICTURE["num_inference_steps"]
    assert prediction.progress == Prediction.Progress(1.0, steps, steps), repr(prediction.logs)


@pytest.mark.usefixtures("fine_tune")
def test_a_canceled_training_leaves_the_server_ready_and_nothing_behind(
    client: Client, stand_in: StandIn, pictures_zip: Path
) -> None:
    server = stand_in.workers["train"].server
    assert server is not None
    before = set(server.folder.rglob("*"))
    versions = len(client.models.get("you/my-robot").versions.list().results)
    address = client.files.create(pictures_zip).urls["get"]
    long_one, waiting = (
        client.trainings.create(
            version=trainer(stand_in),
            destination="you/my-robot",
            input={"input_images": address, **TINY_TRAINING, "max_train_steps": 100_000},
        )
        for _ in range(2)
    )
    poll(long_one, until=lambda training: progress(training) is not None)
    waiting.cancel()
    assert (waiting.status, waiting.logs) == ("canceled", "")
    assert server.health()["status"] == "BUSY"
    long_one.cancel()
    poll(long_one)
    assert (long_one.status, long_one.output) == ("canceled", None)
    deadline = time.monotonic() + 10
    while server.health()["status"] != "READY" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert server.health()["status"] == "READY"
    assert set(server.folder.rglob("*")) == before
    assert len(client.models.get("you/my-robot").versions.list().results) == versions


@pytest.mark.usefixtures("fine_tune")
@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({}, "holds no pictures (found: 1 .txt)"),
        ({"max_train_steps": 0}, "max_train_steps: 0 is less than the minimum of 1"),
    ],
)
def test_a_failing_training_says_why(
    client: Client, stand_in: StandIn, inputs: dict[str, int], text: str
) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("notes.txt", "no picture")
    training = client.trainings.create(
        version=trainer(stand_in),
        destination="you/my-robot",
        input={"input_images": archive, **TINY_TRAINING, **inputs},
    )
    poll(training)
    assert training.status == "failed"
    assert text in (training.error or "")
    assert training.output is None


def test_a_wrong_token_is_refused(stand_in: StandIn) -> None:
    stranger = Client(api_token="r8_wrong", base_url=stand_in.base_url)
    with pytest.raises(ReplicateError, match="status: 401"):
        stranger.models.get("you/sdxl-trainer")


def test_a_destination_must_exist(client: Client, stand_in: StandIn) -> None:
    with pytest.raises(ReplicateError, match="training destination does not exist"):
        client.trainings.create(version=trainer(stand_in), destination="you/nothing", input={})


def test_an_uploaded_file_is_served_to_whoever_has_its_signed_address_alone(
    client: Client, pictures_zip: Path
) -> None:
    file = client.files.create(pictures_zip, metadata={"subject": "robot"})
    assert client.files.get(file.id) == file
    assert (file.size, file.metadata) == (pictures_zip.stat().st_size, {"subject": "robot"})
    assert httpx.get(file.urls["get"]).status_code == httpx.codes.UNAUTHORIZED
    assert httpx.get(f"{file.urls['get']}/download?signature=0").status_code == 403
