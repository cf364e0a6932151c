"""A model as a JSON response."""

from pydantic import BaseModel
from starlette.responses import Response


def json_response(model: BaseModel, *, status: int = 200, location: str | None = None) -> Response:
    """Return the response that holds a model; `location` names the resource that was made."""
    headers = {"Location": location} if location else None
    return Response(model.model_dump_json(), status, headers, media_type="application/json")
