"""`audiomill JOB ...`. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 finished with rejections under --strict."""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
import warnings
from itertools import pairwise

import click

from audiomill import __version__
from audiomill.config import renamed
from audiomill.errors import AudiomillError, UsageError

SAID_OF_NO_ROOM = ("No space left on device", "PytorchStreamWriter failed writing", "inline_container.cc")
"""By libraries that do not raise OSError."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
EXIT_FAILED, EXIT_USAGE = 1, 2

JOBS = {
    "Process": {
        "plan": "Forecast hours, machines, money and bytes",
        "transcribe": "Audio to text with times",
        "embed": "Audio to hidden states, exact in batches",
        "encode": "Audio to discrete codes",
        "run": "Several models behind one decode",
        "listen": "Words while the audio comes",
        "redecode": "New texts from saved posteriors",
        "resynthesize": "Codes back to sound, and how good it is",
    },
    "Review": {
        "watch": "Follow a running job",
        "inspect": "Counts, rejections, the least sure texts",
        "report": "The page with charts and clips",
        "link-speakers": "The same person in all recordings",
        "score": "WER and CER against references",
        "export": "Subtitles, text, CSV, units, training data",
        "trace": "One recording, every step as a picture",
    },
    "Train": {
        "probe": "Which layers tell a label; mixture weights",
        "kmeans": "Fit a codebook to hidden states",
        "codebook": "Convert other people's codebooks",
        "tune-decoder": "Weights of the beam search",
        "select": "Transcripts to labels that can be trusted",
        "train-unit-lm": "A masked language model over codes",
        "finetune": "Train a model on labelled audio",
        "self-train": "Label, select, train, promote, in rounds",
    },
    "Install": {
        "models": "Which checkpoints can be used, and how",
        "demo": "A small corpus, transcribed and scored",
        "doctor": "Versions, devices, codecs, stores",
        "completion": "Tab completion for your shell",
    },
}
"""Every job in the order in which a user meets it: heading -> name -> what it does, in 45 characters at most. A job's
command is the function of its name in the file of its name, in the folder that the heading names."""


class Jobs(click.Group):
    """Imports a job's file only when that job is asked for: `audiomill --help` loads none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for jobs in JOBS.values() for name in jobs]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = renamed.RENAMED_JOBS.get(cmd_name, cmd_name)
        if name not in self.list_commands(ctx):
            return None
        folder = next(heading for heading, jobs in JOBS.items() if name in jobs).lower()
        stem = name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f"audiomill_jobs.{folder}.{stem}"), stem)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, jobs in JOBS.items():
            with formatter.section(heading):
                formatter.write_dl(list(jobs.items()))


@click.group(cls=Jobs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="audiomill", message="%(prog)s %(version)s")
def command_line() -> None:
    """Turns audio corpora of any size into transcripts, embeddings and discrete codes in Parquet, and loses nothing.

    INPUTs are files, folders, globs, tar or Parquet shards and manifests, local or at any fsspec URL.
    Run the same command again after an interruption: finished parts are not redone.
    """


def describe_failure(error: Exception) -> str | None:
    """One line for what the machine, the network or the store denies; None for anything else."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return f"{error.filename or 'the disk'}: {error.strerror}; make room and run the same command again"
    if any(words in str(error) for words in SAID_OF_NO_ROOM):
        return "the disk: No space left on device; make room and run the same command again"
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) and error.filename:
        return f"{error.filename}: cannot be written ({error.strerror}); name a place that can"
    from audiomill.storage.fs import NETWORK_LIBRARIES  # only here: a help page needs no store

    if type(error).__module__.split(".")[0] in (*NETWORK_LIBRARIES, "google", "huggingface_hub"):
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return f"the store or its server cannot be reached ({reason}); check address, network and --storage-options"
    return None


def main() -> None:
    """Entry point: errors that are not bugs become one line on stderr."""
    _quieten()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name or a text in a terminal that cannot show it
    # Threads of one product wait for each other at every step: spinning, they would hold up whatever else runs here, and
    # be held up by it. torch reads this when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    state: dict[str, str] = {}
    try:
        if "_AUDIOMILL_COMPLETE" in os.environ:
            command_line.main(prog_name="audiomill", complete_var="_AUDIOMILL_COMPLETE")
        code = command_line.main(prog_name="audiomill", standalone_mode=False, obj=state)
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
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    except Exception as error:
        if "--verbose" in sys.argv:
            raise
        message = describe_failure(error)
        if message is not None:
            sys.exit(_fail(message, EXIT_FAILED, state))
        code = _fail(
            f"{type(error).__name__}: {error} (run again with --verbose for the traceback)", EXIT_FAILED, state
        )
    except KeyboardInterrupt:
        code = _fail("interrupted; run the same command again to continue", EXIT_FAILED, state)
    sys.exit(code or 0)


def _fail(message: str, code: int, state: dict[str, str]) -> int:
    from audiomill.watch.journal import json_line, redacted

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
