"""`smartstore forget`: deletes all that is kept of a conversation, in every store."""

import asyncio
import sys

from smartstore_indexing.settings import Settings, load_settings
from smartstore_ui.chat.database import HISTORY_FILE, Database, history_url
from smartstore_ui.chat.erasing import erased
from smartstore_workflows.app import answer_store
from smartstore_workflows.forgetting import Forgotten, forget_session
from smartstore_workflows.stores import opened_stores
from smartstore_workflows.understanding import checked_session_id

REST = "기다리는 메시지와 로그, 추적, 백업에 남은 것은 docs/operations.md의 ‘개인정보’를 보고 지워 주세요."


def run_forget(session_id: str) -> int:
    """Delete a conversation and say what was there; 1 when nothing was.

    The servers may go on meanwhile; a question that is being answered right then is to be forgotten afterwards.

    Raises:
        InvalidRequest: that can be no conversation's id.
        StoreUnavailable: a store does not answer; the others' part may be deleted, and the rest is by another call.
    """
    settings = load_settings()
    checked_session_id(session_id)
    found, page = asyncio.run(_forget(settings, session_id))
    if not found and not page:
        sys.stderr.write("그런 대화가 없습니다. 이미 지워졌거나 보관 기간이 지났을 수 있습니다.\n")
        return 1
    parts = [
        *(["대화"] if found.conversation else []),
        *([f"문답 기록과 의견 {found.runs:,}건"] if found.runs else []),
        *(["채팅 페이지의 대화"] if page else []),
    ]
    sys.stdout.write(f"지웠습니다: {', '.join(parts)}.\n{REST}\n")
    return 0


async def _forget(settings: Settings, session_id: str) -> tuple[Forgotten, bool]:
    async with opened_stores(settings) as stores:
        found = await forget_session(stores, await answer_store(settings, stores), session_id)
    return found, await _forget_page(settings, session_id)


async def _forget_page(settings: Settings, session_id: str) -> bool:
    """Delete the page's chat, which has the conversation's id, and return whether there was one."""
    if not settings.chat.history_url.get_secret_value() and not (settings.data_dir / HISTORY_FILE).exists():
        return False
    database = await Database.open(history_url(settings))
    try:
        return await erased(database, session_id)
    finally:
        await database.close()
