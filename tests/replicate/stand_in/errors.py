"""The one exception of the stand-in."""

from http import HTTPStatus

from tests.replicate.stand_in.records import Json


class ApiError(Exception):
    """An answer that says no, as `application/problem+json` (RFC 7807)."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        """Say no with a status and a sentence."""
        super().__init__(detail)
        self.status = status
        self.body: Json = {"title": status.phrase, "detail": detail, "status": status.value}


NOT_FOUND = "The requested resource could not be found."
