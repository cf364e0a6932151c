"""What is written of the page, and what Chainlit gets back.

Personal data is masked, characters that no database keeps are gone, everything is bounded.
"""

import json
import re
from collections.abc import Mapping
from typing import TypeGuard, cast

from chainlit.element import Element, ElementDict
from chainlit.step import StepDict
from chainlit.types import FeedbackDict
from pydantic import JsonValue
from sqlalchemy import RowMapping

from smartstore_indexing.cleaning import CONTROL
from smartstore_indexing.errors import InvalidRequest
from smartstore_workflows.masking import mask
from smartstore_workflows.understanding import MAX_SESSION_ID

MAX_NAME = 60
MAX_TEXT = 20_000  # masking these takes a tenth of a second
MAX_JSON = 100_000  # characters; the five longest answers of the FAQ have 40,000
RANDOM_ID = re.compile(r"(?=[\d-]*[a-f])[0-9a-f-]{16,64}")  # whose digits are no telephone number
# Of a step; what is not named here is a column, or of a running answer only.
PLAIN = ("type", "parentId", "start", "end")
MASKED = (
    *("name", "input", "metadata", "tags", "command", "modes", "language", "icon", "showInput"),
    *("isError", "waitForAnswer", "defaultOpen", "autoCollapse"),
)
OF_ELEMENT = ("name", "display", "size", "language", "mime", "props")

Fields = dict[str, JsonValue]


def is_id(value: object) -> TypeGuard[str]:
    """Tell whether a value, a browser's perhaps, can be an id: 1 to 200 characters that can be stored."""
    return isinstance(value, str) and 0 < len(value) <= MAX_SESSION_ID and not CONTROL.search(value)


def checked_id(value: object) -> str:
    """Return an id; InvalidRequest when it can be none."""
    if not is_id(value):
        raise InvalidRequest("대화 ID를 읽을 수 없습니다. 페이지를 새로 고친 뒤 다시 시도해 주세요.")
    return value


def kept_text(text: object, limit: int = MAX_TEXT) -> str:
    """Return what is kept of a text, at most `limit` characters."""
    return mask(CONTROL.sub("", str(text))[:MAX_TEXT])[:limit]


def kept_json(value: object) -> JsonValue:
    """Return what is kept of a value that becomes JSON; InvalidRequest when it is too large or cannot be read."""
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
        if len(text) > MAX_JSON:
            raise InvalidRequest("페이지의 자료가 너무 큽니다.")
        return _kept(json.loads(text, parse_constant=lambda _: None))  # PostgreSQL knows no NaN
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest("페이지의 자료를 읽을 수 없습니다.") from error


def kept_fields(value: Mapping[str, object] | None) -> Fields:
    """Return what is kept of a mapping; raises what `kept_json` raises."""
    kept = kept_json(dict(value or {}))
    assert isinstance(kept, dict)
    return kept


def _kept(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return value if RANDOM_ID.fullmatch(value) else kept_text(value)
    if isinstance(value, list):
        return [_kept(item) for item in value]
    if isinstance(value, dict):
        return {CONTROL.sub("", name): _kept(item) for name, item in value.items()}
    return value


def step_row(step: StepDict) -> dict[str, object]:
    """Return the columns that a step says something of; what it leaves open is not among them."""
    said = dict(step)
    fields = kept_fields({name: said[name] for name in MASKED if said.get(name) not in (None, {})})
    fields |= {name: value for name in PLAIN if is_id(value := said.get(name))}
    row: dict[str, object] = {"fields": fields}
    if "type" in fields:
        row["type"] = fields["type"]
    if is_id(created_at := step.get("createdAt")):
        row["created_at"] = created_at
    if (output := step.get("output")) is not None:
        row["output"] = kept_text(output)
    return row


def step_of(row: RowMapping) -> StepDict:
    """Return a step as Chainlit's page shows it, with its feedback."""
    unsaid = dict.fromkeys((*PLAIN, *MASKED, "generation")) | {
        "name": "",
        "metadata": {},
        "input": "",
        "isError": False,
    }
    step = unsaid | row["fields"] | {"streaming": False, "feedback": _feedback_of(row)}
    step |= {"id": row["id"], "threadId": row["thread_id"], "createdAt": row["created_at"], "output": row["output"]}
    return cast("StepDict", step)  # the same keys


def _feedback_of(row: RowMapping) -> FeedbackDict | None:
    if row["feedback_id"] is None:
        return None
    return FeedbackDict(forId=row["id"], id=row["feedback_id"], value=row["value"], comment=row["comment"])


def element_row(element: Element) -> dict[str, object]:
    """Return the columns of an element that consists of its properties."""
    said = element.to_dict()
    step_id = said.get("forId")
    return {
        "step_id": step_id if is_id(step_id) else None,
        "fields": kept_fields({name: said.get(name) for name in OF_ELEMENT}),
    }


def element_of(row: RowMapping) -> ElementDict:
    """Return an element as Chainlit's page shows it."""
    element = ElementDict(id=row["id"], threadId=row["thread_id"], type="custom", forId=row["step_id"])
    element |= {"path": None, "url": None, "chainlitKey": None, "objectKey": None, "page": None}
    element |= {"autoPlay": None, "playerConfig": None}
    return cast("ElementDict", element | row["fields"])  # the same keys
