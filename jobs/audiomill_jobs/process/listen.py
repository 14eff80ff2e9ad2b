"""audiomill listen: words while the audio comes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click
import numpy as np

from audiomill.config.stages import ListenConfig
from audiomill.errors import AudiomillError, RunError, UsageError
from audiomill_jobs.options import JobCommand, config_from, with_options
from audiomill_jobs.telling import quiet_libraries

EXAMPLES = """\
Examples:
  audiomill listen talk.wav --model facebook/wav2vec2-base-960h
  audiomill listen talk.wav --model openai/whisper-base --simulate fast
  ffmpeg -i rtsp://radio -f s16le -ar 16000 -ac 1 - | audiomill listen - --model openai/whisper-base --language de
  audiomill listen call.raw --raw-rate 8000 --raw-format mulaw --model openai/whisper-base
"""


@click.command(cls=JobCommand, config=ListenConfig, epilog=EXAMPLES)
@click.argument("source", metavar="FILE|-|URL")
@with_options(ListenConfig)
def listen(source: str, config_file: str | None, **flags: Any) -> None:
    """Write words while the audio comes, with bounded delay.

    A JSON line a word: text, start_s, stop_s, is_final, emitted_s. Words that are not final may change; a later line from the
    same start_s on takes their place. Of CTC models each chunk is heard with audio around it; Whisper looks again with every
    chunk, and what two looks agree on is final. - is standard input: PCM of 16 bits, 16 kHz, one channel, or as --raw-... say.
    """
    from audiomill.streams.listener import Listener
    from audiomill.streams.simulated import beside_whole, played, text_of_whole
    from audiomill.streams.sources import STDIN, open_stream

    config = config_from(ListenConfig, (source,), config_file, flags)
    simulate, language = config.source.simulate, config.source.language
    if simulate != "off" and source == STDIN:
        raise UsageError("--simulate: plays a file; name one, or leave it out for standard input")
    with quiet_libraries(config.source.verbose):
        listener = Listener(config.model.model, language, config.chunks, config.model, config.source.storage_options)
        stream, chunks = listener.stream(), []

        def audio() -> Iterator[Any]:
            for piece in open_stream(source, config.source):
                if simulate != "off":
                    chunks.append(piece)
                yield piece

        if simulate != "off":
            result = played(stream, audio(), listener.chunk_s, simulate == "realtime", print_word)
            for line in result.lines():
                click.echo(line, err=True)
            whole = np.concatenate(chunks) if chunks else np.zeros(1, np.int16)
            expected = text_of_whole(whole, config.model, language, listener.segment, config.source.storage_options)
            click.echo(beside_whole(result.text, expected, language), err=True)
            return
        _live(stream, audio())


def _live(stream: Any, audio: Iterable[Any]) -> None:
    """Words as they come; what was recognised is told although the stream ends with an error."""
    error: Exception | None = None
    pieces = iter(audio)
    while True:
        try:
            piece = next(pieces, None)
        except (AudiomillError, OSError) as caught:
            error = caught
            break
        if piece is None:
            break
        print_word(stream.insert(piece))
    print_word(stream.finish())
    if isinstance(error, AudiomillError):
        raise error
    if error is not None:
        raise RunError(f"the stream broke off after {stream.received_s:.1f} s ({error}); the words so far are told")


def print_word(words: Sequence[Any]) -> None:
    """A JSON line a word, at once."""
    for word in words:
        line = {**word._asdict(), "start_s": round(word.start_s, 3), "stop_s": round(word.stop_s, 3)}
        click.echo(json.dumps(line, ensure_ascii=False))
