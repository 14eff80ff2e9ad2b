"""`audiomill JOB ...`. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 finished with rejections under --strict."""

from __future__ import annotations

import os
import sys
import warnings
from itertools import pairwise

import click

import pipeline
from jobs.codebook import codebook
from jobs.completion import completion
from jobs.decode import decode
from jobs.demo import demo
from jobs.doctor import doctor
from jobs.embed import embed
from jobs.encode import encode
from jobs.export import export
from jobs.finetune import finetune
from jobs.inspect_run import inspect_run
from jobs.kmeans import kmeans
from jobs.plan import plan
from jobs.report import report
from jobs.run_yaml import run
from jobs.score import score
from jobs.select import select
from jobs.self_train import self_train
from jobs.trace import trace
from jobs.transcribe import transcribe
from jobs.tune_decoder import tune_decoder
from jobs.watch import watch
from pipeline.errors import AudiomillError, UsageError
from pipeline.run.journal import json_line, redacted

EXIT_FAILED, EXIT_USAGE = 1, 2


class Jobs(click.Group):
    """Jobs in the order in which a user meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Jobs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(pipeline.__version__, prog_name="audiomill", message="%(prog)s %(version)s")
def audiomill() -> None:
    """Turns audio corpora of any size into transcripts, embeddings and discrete codes in Parquet, and loses nothing.

    INPUTs are files, folders, globs, tar or Parquet shards and manifests, local or at any fsspec URL.
    Run the same command again after an interruption: finished parts are not redone.
    """


JOBS = (
    plan, transcribe, embed, encode, run, kmeans, codebook, decode, tune_decoder, select, finetune, self_train, watch, inspect_run, report, score,
    export, trace, demo, doctor, completion,
)  # fmt: skip
for job in JOBS:
    audiomill.add_command(job)


def main() -> None:
    """Entry point: errors that are not bugs become one line on stderr."""
    _quieten()
    state: dict[str, str] = {}
    try:
        if "_AUDIOMILL_COMPLETE" in os.environ:
            audiomill.main(prog_name="audiomill", complete_var="_AUDIOMILL_COMPLETE")
        code = audiomill.main(prog_name="audiomill", standalone_mode=False, obj=state)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        where = f" {error.ctx.command_path}" if isinstance(error, click.UsageError) and error.ctx else ""
        hint = f" (see `{where.strip()} --help`)" if where else ""
        code = _fail(f"{error.format_message()}{hint}", EXIT_USAGE, state)
    except click.Abort:
        code = _fail("interrupted; run the same command again to continue", EXIT_FAILED, state)
    except UsageError as error:
        code = _fail(str(error), EXIT_USAGE, state)
    except AudiomillError as error:
        code = _fail(str(error), EXIT_FAILED, state)
    except Exception as error:
        if "--verbose" in sys.argv:
            raise
        code = _fail(
            f"{type(error).__name__}: {error} (run again with --verbose for the traceback)", EXIT_FAILED, state
        )
    except KeyboardInterrupt:
        code = _fail("interrupted; run the same command again to continue", EXIT_FAILED, state)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    sys.exit(code or 0)


def _fail(message: str, code: int, state: dict[str, str]) -> int:
    text = redacted(" ".join(message.split()))
    asked = "--log-format=json" in sys.argv or ("--log-format", "json") in pairwise(sys.argv)
    is_json = asked or state.get("log_format") == "json"
    print(json_line("failed", "error", {"message": text}) if is_json else f"audiomill: error: {text}", file=sys.stderr)
    return code


def _quieten() -> None:
    """Libraries' chatter is for --verbose."""
    if "--verbose" not in sys.argv:
        warnings.simplefilter("ignore")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


if __name__ == "__main__":
    main()
