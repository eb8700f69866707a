"""The body of an upload, `multipart/form-data` (RFC 7578)."""

from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A field of the form; `filename` is None where it is no file."""

    filename: str | None
    content_type: str
    content: bytes


def parse_multipart(content_type: str, body: bytes) -> dict[str, Part]:
    """Return the fields of a form by name.

    Args:
        content_type: The header of the request, with the boundary.
        body: The whole body.

    Raises:
        ValueError: It is no form.
    """
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
        raise ValueError(f"Content-Type must be multipart/form-data, got {content_type!r}")
    parts = {}
    for chunk in (b"\r\n" + body).split(b"\r\n--" + boundary.encode())[1:-1]:
        head, _, content = chunk.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = BytesHeaderParser().parsebytes(head)
        name = headers.get_param("name", header="content-disposition")
        filename = headers.get_filename()
        parts[str(name)] = Part(
            filename=filename, content_type=headers.get_content_type(), content=content
        )
    return parts
