"""Write the golden files anew; README.md says when."""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "workflows")]

from test_choosing import golden_choice  # noqa: E402  the tests are no package
from test_events import golden_events  # noqa: E402
from test_prompting import golden_messages  # noqa: E402
from test_reranking import golden_rerank  # noqa: E402
from test_rewriting import golden_rewrite  # noqa: E402
from test_scoping import golden_scope  # noqa: E402

for name, content in (
    ("answer_messages.json", golden_messages()),
    ("rewrite_messages.json", golden_rewrite()),
    ("rerank_messages.json", golden_rerank()),
    ("scope_messages.json", golden_scope()),
    ("choice_messages.json", golden_choice()),
    ("events.json", golden_events()),
):
    (HERE / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
