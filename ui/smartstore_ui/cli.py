"""The command line: `smartstore index | reindex | ask | serve | worker | queue | user | forget | eval | doctor | …`.

Each command is imported when it is chosen.
"""

import argparse
import gc
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence

import structlog

from smartstore_indexing.errors import FaqError, InvalidRequest
from smartstore_ui.commands import parser
from smartstore_ui.exit_codes import INTERRUPTED

# New objects after which Python looks for cycles: looked for after its usual 700, they cost 0.7 s of every start.
GARBAGE = 50_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0, 1 for an error, 2 for a wrong call, 3 when another process holds the data folder, 4 when the quality that was
    measured is surely worse than the baseline's, 130 for an interruption.
    """
    _admit_any_character()
    _quiet_libraries()
    gc.set_threshold(GARBAGE)
    try:
        try:
            return _run(parser().parse_args(arguments))
        finally:
            sys.stdout.flush()  # here, where a reader that left is still caught
    except FaqError as error:
        sys.stderr.write(f"오류: {error.message}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("\n중단했습니다. 저장되어 있던 것은 그대로입니다.\n")
        return INTERRUPTED
    except BrokenPipeError:  # the reader left
        _drop_output()
        return 0
    except OSError as error:
        sys.stderr.write(
            f"오류: 파일이나 출력을 쓸 수 없습니다 ({error.strerror}). 디스크 여유 공간을 확인해 주세요.\n"
        )
        _drop_output()
        return 1


def _run(chosen: argparse.Namespace) -> int:
    return COMMANDS[chosen.command](chosen)


# Imports stand in the functions so that --help answers within a second.


def _index(chosen: argparse.Namespace) -> int:
    from smartstore_ui.indexing import run_index

    return run_index(chosen.path, full=chosen.full, as_json=chosen.json, rollback=chosen.rollback)


def _reindex(chosen: argparse.Namespace) -> int:
    from smartstore_ui.reindexing import run_reindex

    return run_reindex(chosen.source, full=chosen.full, watch=chosen.watch)


def _ask(chosen: argparse.Namespace) -> int:
    if chosen.batch is None and chosen.output is None:
        from smartstore_ui.asking import run_ask

        return run_ask(chosen.question, as_json=chosen.json, session_id=chosen.session, model=chosen.model)
    from smartstore_ui.batch import run_batch

    if chosen.batch is None or chosen.question is not None or chosen.session is not None or chosen.json:
        raise InvalidRequest("--batch와 --output에는 질문, --session, --json을 함께 쓸 수 없습니다.")
    return run_batch(chosen.batch, chosen.output, model=chosen.model)


def _eval(chosen: argparse.Namespace) -> int:
    from smartstore_ui.evaluating import Wanted, run_eval

    wanted = Wanted(
        chosen.json,
        chosen.output,
        chosen.html,
        chosen.baseline,
        chosen.misses,
        cross_validated=chosen.cv,
        models=tuple(chosen.model),
    )
    return run_eval(chosen.files, wanted)


def _serve(chosen: argparse.Namespace) -> int:
    from smartstore_ui.serving import run_serve

    return run_serve(chosen.host, chosen.port, only=chosen.only)


def _worker(chosen: argparse.Namespace) -> int:
    from smartstore_ui.working import run_worker

    return run_worker(chosen.kind)


def _queue(chosen: argparse.Namespace) -> int:
    from smartstore_ui.dead_letters import run_dead

    return run_dead(chosen.queue, as_json=chosen.json, requeue=chosen.requeue)


def _user(chosen: argparse.Namespace) -> int:
    from smartstore_ui.passwords import run_user

    return run_user(chosen.name)


def _forget(chosen: argparse.Namespace) -> int:
    from smartstore_ui.forgetting import run_forget

    return run_forget(chosen.session)


def _export_finetune(chosen: argparse.Namespace) -> int:
    from smartstore_ui.exporting import Wanted, run_export_finetune

    wanted = Wanted(chosen.output, chosen.validation, chosen.seed, chosen.queries, chosen.force)
    return run_export_finetune(chosen.path, wanted)


def _doctor(chosen: argparse.Namespace) -> int:
    if chosen.model is not None:
        from smartstore_ui.model_check import run_model_check

        return run_model_check(chosen.model)
    from smartstore_ui.diagnosing import run_doctor

    return run_doctor()


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "index": _index,
    "reindex": _reindex,
    "ask": _ask,
    "eval": _eval,
    "serve": _serve,
    "worker": _worker,
    "queue": _queue,
    "user": _user,
    "forget": _forget,
    "export-finetune": _export_finetune,
    "doctor": _doctor,
}


def _drop_output() -> None:
    """Send what is still to be written nowhere, so that nothing is said of it when the program ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _admit_any_character() -> None:
    """Let no input or output fail on a character: what cannot be read becomes a surrogate, which is then refused."""
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _quiet_libraries() -> None:
    """Keep the vendors' log lines off the terminal: what matters of them is said by our own errors."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # noqa: TID251  gRPC reads nothing else
    # A question's products are small: OpenBLAS's threads would spin between them, for 15 ms of CPU a question.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # noqa: TID251  read when numpy is imported
    logging.disable(logging.CRITICAL)  # pymilvus sets its own level at import, so a level set here would not last
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )


if __name__ == "__main__":
    sys.exit(main())
