"""Models, versions and runs, and how a run changes."""

import secrets
import threading
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from script.local_cog.schema import Mode, Schema
from tests.replicate.stand_in.errors import NOT_FOUND, ApiError
from tests.replicate.stand_in.files import FileStore
from tests.replicate.stand_in.records import TERMINAL, Event, Json, Model, Run, Version, timestamp
from tests.replicate.stand_in.webhooks import WebhookSender


class Platform:
    """Holds what the API shows. Every method may be called from any thread.

    Attributes:
        files: The files.
        webhooks: Sends to the clients.
    """

    def __init__(self, base_url: str, openapi_schema: Schema) -> None:
        """Begin without models and runs.

        Args:
            base_url: The address of the API, without `/v1`.
            openapi_schema: Of both doors; every version has it.
        """
        self.files = FileStore(base_url)
        self.webhooks = WebhookSender()
        self._base_url = base_url
        self._openapi_schema = openapi_schema
        self._secret = secrets.token_urlsafe(16)
        self._models: dict[str, Model] = {}
        self._runs: dict[str, Run] = {}
        self._lock = threading.RLock()

    def create_model(self, model: Model) -> Json:
        """Add a model and show it.

        Raises:
            ApiError: There is one of this name.
        """
        with self._lock:
            name = f"{model.owner}/{model.name}"
            if self._models.setdefault(name, model) is not model:
                raise ApiError(HTTPStatus.CONFLICT, f"A model named {name} exists already")
            return self.show_model(model)

    def model(self, name: str) -> Model:
        """Return the model `owner/name`.

        Raises:
            ApiError: There is none.
        """
        if name not in self._models:
            raise ApiError(HTTPStatus.NOT_FOUND, NOT_FOUND)
        return self._models[name]

    def show_model(self, model: Model) -> Json:
        """Return a model as the API shows it."""
        with self._lock:
            return model.to_json(self._base_url)

    def add_version(self, model: Model, weights: str | None = None) -> Version:
        """Make a version of a model: the package as it was pushed, or with trained weights."""
        version = Version(
            version_id=secrets.token_hex(32), weights=weights, openapi_schema=self._openapi_schema
        )
        with self._lock:
            model.versions.append(version)
        return version

    def find_version(self, version_id: str) -> tuple[Model, Version]:
        """Return a version and its model.

        Raises:
            ApiError: There is no such version.
        """
        with self._lock:
            for model in self._models.values():
                for version in model.versions:
                    if version.version_id == version_id:
                        return model, version
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid version or not permitted")

    def add_run(self, run: Run) -> Json:
        """Keep a new run and show it."""
        with self._lock:
            self._runs[run.run_id] = run
            return run.to_json(self._base_url)

    def run(self, run_id: str) -> Run:
        """Return a run.

        Raises:
            ApiError: There is none.
        """
        if run_id not in self._runs:
            raise ApiError(HTTPStatus.NOT_FOUND, NOT_FOUND)
        return self._runs[run_id]

    def runs(self, mode: Mode) -> list[Run]:
        """Return the trainings or the predictions, the newest first."""
        with self._lock:
            return [run for run in reversed(self._runs.values()) if run.mode == mode]

    def show_run(self, run: Run) -> Json:
        """Return a run as the API shows it."""
        with self._lock:
            return run.to_json(self._base_url)

    def hook(self, run: Run) -> str:
        """Return the address to which Cog's server reports a run."""
        return f"{self._base_url}/cog/{self._secret}/{run.run_id}"

    def take_report(self, secret: str, run_id: str, report: Json) -> None:
        """Take a report of Cog's server; see `update`.

        Raises:
            ApiError: It was sent to an address that `hook` did not give.
        """
        if not secrets.compare_digest(secret, self._secret):
            raise ApiError(HTTPStatus.NOT_FOUND, NOT_FOUND)
        self.update(self.run(run_id), report)

    def update(self, run: Run, report: Json) -> None:
        """Change a run, and tell the client by webhooks. Nothing changes a run that is over.

        Args:
            run: The run.
            report: What Cog's webhooks say: `status`, `logs`, and at the end `output`, `error` and
                `metrics`.
        """
        with self._lock:
            if run.status in TERMINAL:
                return
            for event in self._apply(run, report):
                if run.webhook and event in run.events:
                    self.webhooks.send(run.webhook, run.to_json(self._base_url))
        if run.status in TERMINAL:
            run.is_over.set()

    def _apply(self, run: Run, report: Json) -> Iterator[Event]:
        status = report["status"]
        if run.status == "starting" and status not in ("starting", "canceled"):
            run.started_at, run.status = timestamp(), "processing"
            yield "start"
        if report.get("logs", run.logs) != run.logs:
            run.logs = report["logs"]
            yield "logs"
        if status not in TERMINAL:
            return
        if status == "succeeded":
            run.output = self._output(run, report["output"])
            yield "output"
        run.status = status
        run.error = report.get("error")
        run.predict_time = report.get("metrics", {}).get("predict_time")
        run.completed_at = timestamp()
        yield "completed"

    def _output(self, run: Run, output: Any) -> Any:
        """Return a prediction's output as it is; a training's becomes files and a new version."""
        if run.destination is None:
            return output
        fields = {name: uri for name, uri in output.items() if uri is not None}
        addresses = {name: self.files.deliver(name, uri) for name, uri in fields.items()}
        version = self.add_version(run.destination, addresses["weights"])
        name = f"{run.destination.owner}/{run.destination.name}"
        return {"version": f"{name}:{version.version_id}", **addresses}
