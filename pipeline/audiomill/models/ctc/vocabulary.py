"""The tokens of a CTC checkpoint, from its tokenizer files; loads no weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from audiomill.errors import ModelError
from audiomill.models.checkpoint import Checkpoint, settings_of
from audiomill.models.ctc.greedy_decoding import CtcVocabulary
from audiomill.models.ctc.word_pieces import mark_of


def vocabulary_of(checkpoint: Checkpoint, language: str | None, trust_remote_code: bool) -> CtcVocabulary:
    """Of a checkpoint with a CTC head, and of the language whose adapter it loads, see `ctc_tokenizer`."""
    folder = Path(checkpoint.path)
    config = _config(folder, trust_remote_code)
    tokenizer = ctc_tokenizer(folder, language, trust_remote_code)
    is_adapted = bool(language) and bool(getattr(config, "adapter_attn_dim", None))
    blank = getattr(config, "blank_token_id", None)
    return ctc_vocabulary(tokenizer, None if is_adapted else config.vocab_size, config.pad_token_id, blank)


def _config(folder: Path, trust_remote_code: bool) -> Any:
    """transformers' own; of models that it does not know what config.json says."""
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    settings = settings_of(folder)
    if settings.get("model_type") in CONFIG_MAPPING or trust_remote_code:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    return SimpleNamespace(**settings)


def ctc_tokenizer(folder: Path, language: str | None, trust_remote_code: bool) -> Any:
    """transformers' own tokenizer; for a checkpoint with tokens by language (MMS), set to `language`.

    Raises:
        ModelError: there is none, or it has no such language.
    """
    from transformers import AutoTokenizer, Wav2Vec2CTCTokenizer

    # a vocabulary alone says enough, but not to transformers where the model's type has no tokenizer of its own
    is_alone = (folder / "vocab.json").exists() and not (folder / "tokenizer_config.json").exists()
    try:
        if is_alone and not (folder / "tokenizer.json").exists():
            tokenizer: Any = Wav2Vec2CTCTokenizer.from_pretrained(folder)
        else:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{folder}: no tokenizer for its CTC head ({reason}); expected vocab.json or tokenizer.json beside the weights"
        ) from error
    by_language = getattr(tokenizer, "vocab", None)
    if language and isinstance(by_language, dict) and any(isinstance(each, dict) for each in by_language.values()):
        if language not in by_language:
            known = ", ".join(sorted(by_language)[:20])
            raise ModelError(f"--language {language}: {folder} has no tokens of it; expected one of {known}")
        tokenizer.set_target_lang(language)
    return tokenizer


def ctc_vocabulary(tokenizer: Any, size: int | None, pad: int | None, blank: int | None = None) -> CtcVocabulary:
    """The tokens of a head.

    Args:
        tokenizer: see `ctc_tokenizer`.
        size: tokens of the head; None: as many as the tokenizer has.
        pad: what the configuration says of padding, which is the blank; transformers writes texts by the tokenizer's,
            which comes first.
        blank: what the configuration says of the blank, where it has a name for it.
    """
    names = {number: token for token, number in tokenizer.get_vocab().items()}
    size = max(names) + 1 if size is None else size
    tokens = tuple(names.get(number, "") for number in range(size))
    blank = next(each for each in (blank, tokenizer.pad_token_id, pad, 0) if each is not None and each < size)
    delimiter = getattr(tokenizer, "word_delimiter_token", None) or "|"
    if delimiter not in tokens and " " in tokens:  # words end at a blank that is a token
        delimiter = " "
    spaced = hasattr(tokenizer, "phone_delimiter_token")
    lower = bool(getattr(tokenizer, "do_lower_case", False))
    special = {number for number in tokenizer.all_special_ids if number < size} - {blank}
    named = tuple(sorted(tokens[number] for number in special if tokens[number] != delimiter))
    mark = "" if spaced or delimiter in tokens else mark_of(tokens)
    return CtcVocabulary(tokens, blank, delimiter, lower, spaced, named, mark)
