"""Speech LLMs of others as families. No torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.config.defaults import WINDOW_S, WINDOWS_BATCH_S
from audiomill.config.text import TranscriptConfig
from audiomill.errors import ModelError
from audiomill.models.base import SpeechModel
from audiomill.models.family import TEXT, Facts, Family, Loading, always, check_plain, of_type
from audiomill.models.frames.frame_families import PRECISIONS
from audiomill.models.task import Shape

EXACT = "tokens are those of `generate` alone, with random weights of true layout (a test compares)"
_OFFERS = "text, retries; word times with a CTC model beside it"


def hf_speech_llm_facts(examples: tuple[str, ...], licence: str, transformers: tuple[int, int] = (5, 24)) -> Facts:
    """What the table of models says of such a family."""
    return Facts(examples=examples, offers=_OFFERS, exact=EXACT, licence=licence, transformers=transformers)


def hf_speech_llm_family(
    name: str,
    checkpoints: str,
    model_type: str,
    steps_a_second: float,
    load: Callable[[Loading], SpeechModel],
    facts: Facts,
    languages: Callable[[], frozenset[str]] | None = None,
) -> Family:
    """A family.

    Args:
        name: of the family.
        checkpoints: for people.
        model_type: as config.json has it.
        steps_a_second: of what the language model is given.
        load: see `audiomill.models.family.Family`.
        facts: see `hf_speech_llm_facts`.
        languages: codes that may be given; None: any, which only stands in the rows.
    """

    def shape(path: Path) -> Shape:
        from transformers import AutoConfig

        width = AutoConfig.from_pretrained(path).text_config.hidden_size
        return Shape(width=width, num_layers=-1, hop=round(MODEL_SAMPLE_RATE / steps_a_second))

    def check(path: Path, model: str, text: TranscriptConfig) -> None:
        check_plain(model, text)
        if text.languages is not None:
            raise ModelError(f"--languages: {model} chooses among all that it knows; say --language, or leave it out")
        if languages is not None and text.language is not None and text.language not in languages():
            raise ModelError(f"--language {text.language}: {model} knows {', '.join(sorted(languages()))}")

    return Family(
        name=name,
        checkpoints=checkpoints,
        facts=facts,
        recognises=of_type(model_type),
        gives=always(TEXT),
        shape=shape,
        check=check,
        load=load,
        window_s=WINDOW_S,
        reads_alone=True,
        batch_seconds=WINDOWS_BATCH_S,
        precisions=PRECISIONS,
        shows_activations=True,
        reads_log_mel=True,
    )
