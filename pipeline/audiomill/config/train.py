"""Options of the jobs that train: `finetune`, `select` and `self-train`. See `audiomill.config.stages` for the rules."""

from __future__ import annotations

from dataclasses import dataclass

from audiomill.config.defaults import WINDOW_S
from audiomill.config.fields import Validated, option
from audiomill.config.optimization import OptimizationConfig
from audiomill.config.stages import DecodeConfig, OutputPlace, PlanConfig
from audiomill.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TrainConfig(OptimizationConfig):
    """How a model is trained."""

    COMMON = (
        "model",
        "objective",
        "features",
        "projector",
        "lm",
        "dev",
        "pseudo",
        "language",
        "epochs",
        "max_updates",
        "learning_rate",
        "batch_seconds",
        "freeze_encoder",
        "device",
        "workers",
        "engine",
    )

    model: str = option(
        "facebook/wav2vec2-base",
        "Checkpoint to start from: wav2vec2 family or Whisper; hub id, local folder, URL, CTranslate2 Whisper folder. new://NAME: random "
        "weights of a known size (`audiomill models --new` lists them).",
        results=True,
    )
    objective: str = option(
        "auto",
        "ctc: a wav2vec2-family model learns to write; whisper: a Whisper does; seq2seq: a Transformer on log-mels; pretrain: wav2vec2 learns from audio alone "
        "(contrastive); wav2vec, vq-wav2vec: so do these older ones, which tell frames to come; features, projector: see --features, "
        "--projector; auto: by the checkpoint, ctc for wav2vec2-family ones.",
        choices=("auto", "ctc", "whisper", "seq2seq", "pretrain", "wav2vec", "vq-wav2vec", "features", "projector"),
        results=True,
    )
    features: bool = option(
        False,
        "Train a CTC head alone, on the frozen features of any encoder (--model): small, quick, comparable.",
        results=True,
    )
    head_width: int = option(
        0, "--features: width of two recurrent layers under the head, in each direction; 0: none.", results=True
    )
    layer_weights: str | None = option(
        None,
        "--features: a weighted sum of all hidden states in place of one: uniform, or a JSON file as `audiomill probe` writes it.",
        results=True,
    )
    projector: bool = option(
        False,
        "Train a projector that lets a language model (--lm) read what a speech encoder (--model: Whisper, wav2vec2, HuBERT, Parakeet "
        "...) hears; both stay frozen. Of a checkpoint made so, the projector learns on.",
        results=True,
    )
    lm: str | None = option(
        None,
        "--projector: causal language model of Llama's kind (SmolLM3, Qwen3, Llama, Granite): hub id, local folder, URL.",
        results=True,
    )
    lm_prompt: str | None = option(
        None,
        "--projector: what the language model reads before it writes, <audio> where the audio goes.",
        otherwise="its chat template with a request to transcribe, or the audio alone",
        results=True,
    )
    encoder_layer: int | None = option(
        None, "--features, --projector: hidden state of the encoder that is read.", otherwise="the last", results=True
    )
    frame_stacking: int = option(5, "--projector: frames of the encoder that become one step.", results=True)
    projector_width: int | None = option(
        None, "--projector: width inside.", otherwise="the language model's", results=True
    )
    frame_dropout: float = option(0.1, "--projector: share of frames that are hidden in training.", results=True)
    no_speech_augment_prob: float = option(
        0.05, "--projector: share of clips that become noise or silence, with no text to write.", results=True
    )
    lora_rank: int = option(
        0,
        "--projector: the language model learns too, by LoRA weights of this rank (pip install 'audiomill[lora]').",
        results=True,
    )
    from_scratch: bool = option(False, "Start from random weights: only the model's config.json is used.", results=True)
    dev: str | None = option(
        None, "Labelled inputs, by comma, to measure WER on while training; the best weights there are kept."
    )
    pseudo: str | None = option(None, "Pseudo-labels to train on as well, by comma: outputs of `audiomill select`.")
    pseudo_weight: float = option(1.0, "Weight of a pseudo-labelled clip's loss; a labelled one has 1.", results=True)
    vocabulary: str = option(
        "auto",
        "CTC tokens. labels: those of the labels, with a new head; checkpoint: the checkpoint's own; auto: checkpoint if it has any.",
        choices=("auto", "labels", "checkpoint"),
        results=True,
    )
    tokenizer: str = option(
        "characters",
        "CTC tokens of new vocabularies. characters: of any script; tokens: what blanks separate, such as phonemes; pieces: of words, "
        "learnt from the labels (--features).",
        choices=("characters", "tokens", "pieces"),
        results=True,
    )
    vocab_size: int = option(
        1000, "seq2seq, --tokenizer pieces: most word pieces that are learnt from the labels.", results=True
    )
    label_smoothing: float = option(0.1, "seq2seq: share of a label that all tokens have together.", results=True)
    text_normalization: str = option(
        "letters",
        "letters: labels without punctuation and in one case, as CTC models write; as-is: as they are (Whisper and projectors always).",
        choices=("letters", "as-is"),
        results=True,
    )
    language: str | None = option(
        None,
        "Language code of labels that name none in the manifest's language column; multilingual Whisper needs one or the other.",
        results=True,
    )
    language_adapters: bool = option(
        False,
        "ctc: each language of the labels has tokens and a head of its own, and adapters in networks with room for them (MMS, "
        "wav2vec2-large-lv60); `transcribe --language` says which one is heard.",
        results=True,
    )
    adapter_width: int = option(
        16, "--language-adapters: width inside adapters of a checkpoint that has none.", results=True
    )
    max_warmup_updates: int | None = option(
        None, "Most updates in which it rises.", otherwise="no limit; for a projector 500", results=True
    )
    min_clip_seconds: float = option(0.1, "Shorter clips are dropped.", results=True)
    max_clip_seconds: float = option(WINDOW_S, "Longer clips are dropped.", results=True)
    freeze_feature_encoder: bool = option(
        True,
        "Leave the convolutions as they are (trained all the same with --from-scratch and pretrain).",
        results=True,
    )
    freeze_encoder_updates: int = option(
        0, "Updates in which only the head learns, before the transformer thaws.", results=True
    )
    freeze_encoder: bool = option(
        False,
        "Whisper: only the decoder learns; --language-adapters: only what belongs to the languages.",
        results=True,
    )
    mask_time_prob: float = option(0.05, "SpecAugment: share of frames that start a mask of 10 frames.", results=True)
    mask_feature_prob: float = option(
        0.0, "SpecAugment: share of features that start a mask of 10 features.", results=True
    )
    speed_augment: float = option(0.0, "Clips are played up to this share faster or slower, e.g. 0.1.", results=True)
    noise_snr: float | None = option(
        None, "Half of the clips get noise, this many dB to 20 dB more below the speech.", results=True
    )
    ema_decay: float | None = option(
        None, "Evaluate and keep an exponential average of the weights, e.g. 0.999.", results=True
    )
    evaluate_every: int | None = option(
        None, "Updates between evaluations on --dev.", otherwise="an epoch", results=True
    )
    patience: int | None = option(
        None, "Stop after this many evaluations without a better WER.", otherwise="never", results=True
    )
    trust_remote_code: bool = option(
        False, "Let a checkpoint bring its own Python code. Leave off unless you have read it."
    )

    def check(self) -> None:
        super().check()
        self.require_positive(
            "max_clip_seconds", "evaluate_every", "patience", "pseudo_weight", "frame_stacking", "projector_width",
            "max_warmup_updates", "vocab_size", "adapter_width",
        )  # fmt: skip
        self.require_shares("frame_dropout", "no_speech_augment_prob", "label_smoothing")
        if self.features and self.projector:
            raise UsageError(
                "--features and --projector: a head on features, or a projector before a language model; take one"
            )
        if self.head_width < 0:
            raise UsageError(f"--head-width {self.head_width}: expected 0 or more")
        if self.lora_rank < 0:
            raise UsageError(f"--lora-rank {self.lora_rank}: expected 0 or more")
        if not 0 <= self.speed_augment < 0.5:
            raise UsageError(f"--speed-augment {self.speed_augment}: expected a share from 0 to below 0.5")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise UsageError(f"--ema-decay {self.ema_decay}: expected a number between 0 and 1, such as 0.999")
        if self.min_clip_seconds >= self.max_clip_seconds:
            raise UsageError(
                f"--min-clip-seconds {self.min_clip_seconds:g}: expected less than --max-clip-seconds {self.max_clip_seconds:g}"
            )


@dataclass(frozen=True, kw_only=True)
class TrainOutputConfig(OutputPlace):
    """Where a training run lives."""

    EXAMPLE = "name a folder for the checkpoint, e.g. --output model/"

    output: str = option(
        "",
        "Folder or URL for the checkpoint, its metrics and the state to go on from (with a URL, work is done in ~/.cache/audiomill).",
    )
    verbose: bool = option(False, "Show what the libraries say.")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """`audiomill finetune`: labelled audio -> a checkpoint."""

    inputs: tuple[str, ...]
    train: TrainConfig = TrainConfig()
    plan: PlanConfig = PlanConfig()
    decode: DecodeConfig = DecodeConfig()
    output: TrainOutputConfig


@dataclass(frozen=True, kw_only=True)
class LoopConfig(Validated):
    """How rounds follow each other, and when a student is promoted."""

    rounds: int = option(3, "Rounds of label, select, train, score, at most.", results=True)
    level: float = option(
        0.05,
        "A student is promoted if chance explains its gain on the test set with less than this probability.",
        results=True,
    )
    patience: int = option(1, "Stop after this many rounds without a promotion.", results=True)
    min_gain: float = option(0.0, "Stop when a promotion cuts the WER by less than this share.", results=True)
    start: str = option(
        "pretrained",
        "pretrained: each student starts from --model, as the teacher did; teacher: it goes on from the teacher.",
        choices=("pretrained", "teacher"),
        results=True,
    )
    tune_trials: int = option(
        0,
        "Before a CTC teacher labels: settings of its beam search (label.lm, label.rescore_model) that are tried on dev; 0: as given.",
        results=True,
    )
    seed: int = option(0, "Of the trainings (each round adds its number) and of the bootstrap.", results=True)

    def check(self) -> None:
        self.require_positive("rounds", "patience")
        if self.tune_trials < 0:
            raise UsageError(f"--tune-trials {self.tune_trials}: expected 0 (none) or more")
        if not 0 < self.level <= 0.5:
            raise UsageError(f"--level {self.level}: expected a probability above 0, at most 0.5, such as 0.05")
