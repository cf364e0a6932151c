"""The commands, their arguments and what `--help` says of them; cli.py runs them."""

import argparse
from pathlib import Path

from smartstore_ui.arguments import KoreanParser, count, port, readable
from smartstore_ui.exit_codes import SIGNIFICANT_LOSS


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    root = KoreanParser(prog="smartstore", description="네이버 스마트스토어 판매자를 위한 FAQ 챗봇")
    commands = root.add_subparsers(
        title="명령", metavar="명령", dest="command", required=True, parser_class=KoreanParser
    )

    index = commands.add_parser(
        "index", help="FAQ 파일을 색인합니다.", description="FAQ 파일을 색인합니다. 바뀐 FAQ만 새로 임베딩합니다."
    )
    index.inputs.add_argument(
        "path",
        metavar="파일",
        nargs="?",
        type=Path,
        help=".pkl, .csv, .jsonl 파일 (기본값: SMARTSTORE_FAQ 또는 예시 FAQ)",
    )
    index.options.add_argument("--full", action="store_true", help="바뀌지 않은 FAQ도 모두 다시 임베딩합니다.")
    index.options.add_argument("--json", action="store_true", help="요약을 JSON 한 줄로 출력합니다.")
    index.options.add_argument("--rollback", action="store_true", help="색인하지 않고 바로 전 색인으로 되돌립니다.")

    reindex = commands.add_parser(
        "reindex",
        help="색인 워커에게 색인을 요청합니다.",
        description="RabbitMQ로 색인을 요청합니다. 검색은 그동안에도 끊기지 않습니다.\n"
        "RabbitMQ가 없으면 데이터 폴더를 쓰고 있는 서버가, 서버도 없으면 이 명령이 색인합니다.",
    )
    reindex.inputs.add_argument(
        "source",
        metavar="파일",
        nargs="?",
        type=readable,
        help="허용된 폴더의 파일이나 https 주소 (기본값: 색인하는 쪽의 SMARTSTORE_FAQ)",
    )
    reindex.options.add_argument("--full", action="store_true", help="바뀌지 않은 FAQ도 모두 다시 임베딩합니다.")
    reindex.options.add_argument(
        "--watch", action="store_true", help="끝날 때까지 진행을 보여 줍니다. 색인하지 못하면 종료 코드 1로 끝납니다."
    )

    ask = commands.add_parser(
        "ask",
        help="질문하고 답을 받습니다.",
        description="질문하고 답을 받습니다. 질문을 쓰지 않으면 대화를 시작합니다.\n"
        "--batch는 파일의 질문에 모두 답합니다. --output 파일에 이미 있는 답은 다시 묻지 않으므로,\n"
        "중단한 뒤 같은 명령을 다시 실행하면 이어서 합니다.",
    )
    ask.inputs.add_argument("question", metavar="질문", nargs="?", help="1~2,000자. 쓰지 않으면 대화를 시작합니다.")
    ask.options.add_argument("--json", action="store_true", help="이벤트를 한 줄에 하나씩 JSON으로 출력합니다.")
    ask.options.add_argument(
        "--session", metavar="ID", type=readable, help="이어 갈 대화의 ID. 쓰지 않으면 새 대화입니다."
    )
    ask.options.add_argument(
        "--model", metavar="이름", help="답할 모델: extractive(FAQ 그대로), openai, vllm 등 설정된 이름"
    )
    ask.options.add_argument(
        "--batch", metavar="파일", type=Path, help='한 줄에 질문 하나, 또는 {"id", "question"} 형식의 JSON 한 줄씩'
    )
    ask.options.add_argument(
        "--output", metavar="파일", type=Path, help="--batch의 답을 JSON 한 줄씩 저장합니다 (기본값: 화면)."
    )

    evaluate = commands.add_parser(
        "eval",
        help="라벨이 붙은 질문으로 품질을 잽니다.",
        description="라벨이 붙은 질문(JSONL)으로 검색, 범위 판단, 답변 없음 판단의 품질을 잽니다.\n"
        "--baseline과 비교해 주요 지표(hit@k, MRR, 범위 밖 거절, 범위 안 받음, 답 없음을 찾지 못함)가\n"
        f"뚜렷이 나빠졌으면(차이의 95% 구간이 모두 나쁜 쪽이면) 종료 코드 {SIGNIFICANT_LOSS}로 끝납니다.",
    )
    evaluate.inputs.add_argument("files", metavar="파일", nargs="+", type=Path, help="평가 세트(.jsonl)")
    evaluate.options.add_argument("--json", action="store_true", help="결과를 JSON으로 출력합니다.")
    evaluate.options.add_argument("--output", metavar="파일", type=Path, help="결과를 JSON 파일로 저장합니다.")
    evaluate.options.add_argument("--html", metavar="파일", type=Path, help="그림이 있는 HTML 보고서를 저장합니다.")
    evaluate.options.add_argument(
        "--baseline", metavar="파일", type=Path, help="전에 --output으로 저장한 결과와 비교합니다."
    )
    evaluate.options.add_argument(
        "--misses", metavar="N", type=count, default=0, help="세트마다 가장 나쁜 N건을 보여 줍니다."
    )
    evaluate.options.add_argument(
        "--cv",
        action="store_true",
        help="순위와 문턱값을 다른 묶음의 줄로 맞춘 값(5겹 교차 검증)도 함께 보여 줍니다.",
    )

    evaluate.options.add_argument(
        "--model",
        metavar="이름",
        action="append",
        default=[],
        help="이 모델이 답하게 하고 답의 근거, 인용, 길이, 시간, 값도 잽니다. 여러 번 쓰면 나란히 비교합니다.",
    )

    serve = commands.add_parser(
        "serve",
        help="채팅 페이지와 API 서버를 시작합니다.",
        description="채팅 페이지와 API 서버를 시작합니다. 브라우저, 앱, OpenAI 호환 클라이언트가 씁니다.\n"
        "SIGTERM이나 Ctrl-C를 받으면 답변 중인 질문을 마친 뒤 끝냅니다.",
    )
    serve.options.add_argument("--host", metavar="주소", help="듣는 주소 (기본값: SMARTSTORE_SERVER__HOST, 127.0.0.1)")
    serve.options.add_argument(
        "--port", metavar="포트", type=port, help="듣는 포트 (기본값: SMARTSTORE_SERVER__PORT, 8000; 0이면 빈 포트)"
    )

    serve.options.add_argument(
        "--only", choices=["api", "chat"], help="하나만 엽니다: api 또는 chat(채팅 페이지). 쓰지 않으면 둘 다 엽니다."
    )

    worker = commands.add_parser(
        "worker",
        help="RabbitMQ의 요청을 처리하는 워커를 시작합니다.",
        description="RabbitMQ의 요청을 처리합니다. index는 색인 요청을 한 번에 하나씩 처리하고,\n"
        "answer는 질문에 답합니다(SMARTSTORE_ANSWERS=queue인 서버와 ask --batch가 보내며, Redis도 필요합니다).\n"
        "SIGTERM이나 Ctrl-C를 받으면 새로 받지 않고 처리하던 것을 마친 뒤 끝냅니다.\n"
        "못 마친 것은 다른 워커가 이어받습니다.",
    )
    worker.inputs.add_argument("kind", metavar="종류", choices=["index", "answer"], help="index 또는 answer")

    queue = commands.add_parser(
        "queue", help="RabbitMQ의 큐를 살펴봅니다.", description="RabbitMQ의 큐를 살펴봅니다."
    ).add_subparsers(title="명령", metavar="명령", dest="action", required=True, parser_class=KoreanParser)
    dead = queue.add_parser(
        "dead",
        help="처리를 포기한 메시지와 그 까닭을 보여 줍니다.",
        description="처리를 포기한 메시지와 그 까닭을 보여 줍니다. --requeue로 다시 처리하게 할 수 있습니다.",
    )
    dead.options.add_argument(
        "--queue", choices=["index", "answers", "answers.batch"], help="이 큐만: index, answers, answers.batch"
    )
    dead.options.add_argument("--json", action="store_true", help="한 줄에 하나씩 JSON으로 출력합니다.")
    dead.options.add_argument("--requeue", metavar="ID", type=readable, help="이 메시지를 큐로 돌려보냅니다.")

    user = commands.add_parser(
        "user",
        help="채팅 페이지에 로그인할 사람의 줄을 만듭니다.",
        description="비밀번호를 물어 `아이디:해시` 한 줄을 출력합니다. SMARTSTORE_CHAT__USERS 파일에 이어 붙이세요.\n"
        "  smartstore user 아이디 >> 사용자.txt",
    )
    user.inputs.add_argument("name", metavar="아이디", type=readable, help="로그인할 때 쓸 이름")

    forget = commands.add_parser(
        "forget",
        help="대화 하나를 모든 저장소에서 지웁니다.",
        description="대화와 그 문답 기록, 의견, 보관한 답, 채팅 페이지의 대화를 지웁니다. 서버를 끄지 않아도 됩니다.\n"
        "그 대화의 질문에 답하는 중이면 답이 끝난 뒤에 실행해 주세요.",
    )
    forget.inputs.add_argument("session", metavar="ID", type=readable, help="지울 대화의 ID (세션 ID)")

    export = commands.add_parser(
        "export-finetune",
        help="모델을 미세조정할 대화를 FAQ에서 만듭니다.",
        description="챗봇이 모델에 보내는 것과 같은 대화와 그 정답을 FAQ에서 만들어 폴더에 저장합니다.\n"
        "검증용 FAQ는 따로 떼어 두며, README.md에 무엇이 들어 있는지 적습니다.",
    )
    export.inputs.add_argument(
        "path", metavar="파일", nargs="?", type=Path, help="FAQ 파일 (기본값: SMARTSTORE_FAQ 또는 예시 FAQ)"
    )
    export.options.add_argument("--output", metavar="폴더", type=Path, required=True, help="저장할 폴더")
    export.options.add_argument(
        "--validation", metavar="비율", default="0.1", help="검증으로 떼어 둘 FAQ의 비율 (기본값: 0.1)"
    )
    export.options.add_argument("--seed", metavar="N", type=count, default=0, help="난수 씨앗 (기본값: 0)")
    export.options.add_argument("--queries", metavar="파일", type=Path, help="더할 검색 질문(eval의 .jsonl)")
    export.options.add_argument("--force", action="store_true", help="폴더에 있는 전의 파일을 바꿉니다.")

    checked = "무엇이 설정되어 있고 무엇이 응답하는지 점검하고, 문제가 있으면 해결 방법을 알려 줍니다."
    doctor = commands.add_parser("doctor", help="설정과 연결 상태를 점검합니다.", description=checked)
    doctor.options.add_argument("--model", metavar="이름", help="이 모델에 실제로 물어, 쓸 만한지 봅니다.")
    return root
