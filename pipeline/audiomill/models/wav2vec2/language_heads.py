"""Several languages in one model: each has its own tokens and head and, where the network has room for them, adapters.

B batch, F frames, D width. Files are those of MMS (Pratap et al. 2023, arXiv:2305.13516), which transformers reads:
adapter.LANGUAGE.safetensors, and a vocab.json with a vocabulary for each language.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from audiomill.config.train import TrainConfig
from audiomill.errors import UsageError
from audiomill.models.ctc.labels import LabelForm, form_of, label_vocabulary, save_tokenizer
from audiomill.models.ctc.vocabulary import ctc_tokenizer, ctc_vocabulary
from audiomill.models.frames.wav2vec2_loading import load_adapter
from audiomill.text.normalize import Text
from audiomill.text.scripts import base_language

HEAD, KEY = "lm_head", "in_"
LANGUAGE = re.compile(r"[A-Za-z0-9]+([-_][A-Za-z0-9]+)*")


class LanguageHead(NamedTuple):
    """What belongs to one language, or to all of them."""

    form: LabelForm
    head: nn.Module


class RowLanguages:
    """Languages of the rows that a network is given."""

    def __init__(self) -> None:
        self.languages: Sequence[str] = ()


def by_key(modules: Mapping[str, nn.Module]) -> nn.ModuleDict:
    """Modules by language; keys may not be names of torch's own, as `to` is."""
    return nn.ModuleDict({KEY + language: module for language, module in modules.items()})


class ByLanguage(nn.Module):
    """Each row goes through the module of its own language.

    Args:
        modules: by language.
        row_languages: tells the rows' languages.
    """

    def __init__(self, modules: Mapping[str, nn.Module], row_languages: RowLanguages) -> None:
        super().__init__()
        self.of, self._spoken = by_key(modules), row_languages

    def forward(self, hidden_BFD: Tensor) -> Tensor:
        """hidden_BFD."""
        rows = rows_by_language(self._spoken.languages)
        result = torch.cat([self.of[KEY + language](hidden_BFD[at]) for language, at in rows.items()])
        order = [at for row in rows.values() for at in row]
        return result[sorted(range(len(order)), key=order.__getitem__)]


def rows_by_language(languages: Sequence[str]) -> dict[str, list[int]]:
    """Rows of each language, by name."""
    return {name: [at for at, language in enumerate(languages) if language == name] for name in sorted(set(languages))}


def forms_of(folder: Path, config: TrainConfig, texts: Sequence[Text]) -> dict[str, LabelForm]:
    """Tokens of each language of the texts: the checkpoint's, where it has some, or those that the texts need.

    Raises:
        UsageError: no text says its language, one says what is no code (files are named by it), or some language's texts have no letters.
    """
    languages = sorted({text.language for text in texts if text.language})
    if not languages:
        raise UsageError("--language-adapters: no clip says its language; expected a language column in the manifest")
    strange = [each for each in languages if not LANGUAGE.fullmatch(each)]
    if strange:
        raise UsageError(
            f"--language-adapters: a clip's language is {strange[0]!r}; expected a code such as sv or zh-CN"
        )
    known = set() if config.vocabulary == "labels" else adapted(folder)
    keeps_form, forms = config.text_normalization == "as-is", {}
    for language in languages:
        if language in known:
            vocabulary = ctc_vocabulary(ctc_tokenizer(folder, language, config.trust_remote_code), None, None)
        else:
            same_language = [each for each in texts if each.language == language]
            vocabulary = label_vocabulary(same_language, config.tokenizer == "tokens", keeps_form)
        forms[language] = form_of(vocabulary, keeps_form)
    return forms


def adapted(folder: Path) -> set[str]:
    """Languages that a checkpoint has adapters of."""
    return {path.name.split(".")[1] for path in folder.glob("adapter.*.safetensors")}


def add_language_heads(
    model: Any, folder: Path, forms: Mapping[str, LabelForm], row_languages: RowLanguages
) -> dict[str, LanguageHead]:
    """Gives a model a head and adapters for each language, in place: the checkpoint's, where it has them, or new ones.

    Raises:
        UsageError: transformers keeps no adapters of such a model.
    """
    if not hasattr(model, "_get_adapters"):
        raise UsageError(
            f"--language-adapters: transformers keeps no languages apart in a {model.config.model_type} model; expected a wav2vec2 one"
        )
    layers = [layer for layer in model.modules() if getattr(layer, "adapter_layer", None) is not None]
    known, adapters, language_heads = adapted(folder), [], {}
    for layer in layers:
        _begin_as_nothing(layer.adapter_layer)
    new = [copy.deepcopy(layer.adapter_layer) for layer in layers]
    for language, form in forms.items():
        if language in known:
            load_adapter(model, language, folder)
            own_items = [copy.deepcopy(layer.adapter_layer) for layer in layers]
        else:
            own_items = copy.deepcopy(new)
        head = copy.deepcopy(model.lm_head) if language in known else _new_head(model, len(form.vocabulary.tokens))
        adapters.append(own_items)
        language_heads[language] = LanguageHead(form, head)
    for at, layer in enumerate(layers):
        layer.adapter_layer = ByLanguage(
            {name: own_items[at] for name, own_items in zip(forms, adapters, strict=True)}, row_languages
        )
    model.lm_head = by_key({language: language_head.head for language, language_head in language_heads.items()})
    return language_heads


def _new_head(model: Any, num_tokens: int) -> nn.Linear:
    """As transformers begins one."""
    head = nn.Linear(model.lm_head.in_features, num_tokens)
    nn.init.normal_(head.weight, std=model.config.initializer_range)
    nn.init.zeros_(head.bias)
    return head


def _begin_as_nothing(adapter: Any) -> None:
    """Adds nothing at first, so that the pretrained network is heard as it is."""
    nn.init.zeros_(adapter.linear_2.weight)
    nn.init.zeros_(adapter.linear_2.bias)


def language_of(language: str | None, language_heads: Mapping[str, LanguageHead]) -> str | None:
    """A clip's language as the model names it: `sv-SE` may be `sv`; None where it does not know it."""
    return next((each for each in (language or "", base_language(language)) if each in language_heads), None)


def save_language_heads(model: Any, language_heads: Mapping[str, LanguageHead], folder: Path) -> None:
    """Weights with the first language in place, and a file for each language."""
    state = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    by_language = {language: _of_language(model, state, language) for language in language_heads}
    shared = {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith(f"{HEAD}.") and ".adapter_layer.of." not in name
    }
    first = next(iter(language_heads))
    model.config.vocab_size = len(language_heads[first].form.vocabulary.tokens)
    model.save_pretrained(folder, state_dict={**shared, **by_language[first]}, safe_serialization=True)
    for language, tensors in by_language.items():
        save_file(tensors, folder / f"adapter.{language}.safetensors", {"format": "pt"})
    save_tokenizer(language_heads[first].form.vocabulary, folder)
    vocabularies = {
        language: {token: at for at, token in enumerate(language_head.form.vocabulary.tokens)}
        for language, language_head in language_heads.items()
    }
    (folder / "vocab.json").write_text(json.dumps(vocabularies, ensure_ascii=False), encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "target_lang": first}, indent=1))


def _of_language(model: Any, state: Mapping[str, Tensor], language: str) -> dict[str, Tensor]:
    """Tensors of one language, as a model with that language alone names them."""
    mark = f".of.{KEY}{language}."
    results = {name.replace(mark, "."): tensor for name, tensor in state.items() if mark in name}
    head = f"{HEAD}.{KEY}{language}."
    return results | {f"{HEAD}.{name[len(head) :]}": tensor for name, tensor in state.items() if name.startswith(head)}
