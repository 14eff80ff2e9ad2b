"""A trace -> PNG pictures and one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

import matplotlib
import numpy as np
import soundfile
from matplotlib.figure import Figure
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.html.page import document, table
from audiomill.report.trace.steps import Step, Trace
from audiomill.storage.fs import Place

matplotlib.use("Agg")
WIDTH_INCHES, DOTS_PER_INCH = 12, 110
MAX_COLUMNS, MAX_ROWS = 3000, 600
STYLE = "img{width:100%;background:#fff;border-radius:6px}audio{width:100%}.text{font-size:1.2rem;border-left:4px solid var(--line);padding-left:.8rem}"


def write_page(trace: Trace, folder: Place) -> list[str]:
    """Writes `index.html` with pictures and sound inside, and the pictures as PNG files beside it; returns the names."""
    pictures = [picture(step, len(trace.waveform_T) / MODEL_SAMPLE_RATE) for step in trace.steps]
    names = []
    for number, (step, content) in enumerate(zip(trace.steps, pictures, strict=True), 1):
        names.append(f"{number:02d}-{step.name.replace(' ', '-')}.png")
        folder.join(names[-1]).write(content)
    folder.join("index.html").write(_page(trace, pictures).encode())
    return ["index.html", *names]


def picture(step: Step, seconds: float) -> bytes:
    """One step as a PNG, time from left to right."""
    heights = {
        "wave": 1.8,
        "heat": 3.0,
        "codes": 0.9 + 0.6 * len(step.array),
        "posteriors": 1.4 + 0.22 * len(step.array),
        "choices": 0.6 + 0.3 * len(step.array),
    }
    height = heights[step.kind]
    above = 0.9 if step.words else 0.3  # room for the words over the letters
    figure = Figure(figsize=(WIDTH_INCHES, height + above), dpi=DOTS_PER_INCH)
    # The same margins in every picture: moments lie under each other.
    figure.subplots_adjust(left=0.09, right=0.99, bottom=0.5 / (height + above), top=height / (height + above))
    axes = figure.subplots()
    axes.set_title(step.name, loc="left", pad=6 + 65 * (above - 0.3))
    axes.set_xlabel("token" if step.kind == "choices" else "time [s]")
    axes.set_xlim(0, step.array.shape[1] if step.kind == "choices" else seconds)
    draw = {"wave": _wave, "heat": _heat, "codes": _codes, "posteriors": _posteriors, "choices": _choices}
    draw[step.kind](axes, step)
    sink = io.BytesIO()
    figure.savefig(sink, format="png")
    return sink.getvalue()


def _wave(axes: Any, step: Step) -> None:
    block = max(1, len(step.array) // MAX_COLUMNS)
    whole = step.array[: len(step.array) // block * block].reshape(-1, block)
    at = np.arange(len(whole)) * block / step.rate_hz
    axes.fill_between(at, whole.min(1), whole.max(1), linewidth=0.5)
    axes.set_ylabel("amplitude")


def _heat(axes: Any, step: Step) -> None:
    array = _thinned(step.array.astype(np.float32))
    is_mel = "mel" in step.name
    if not is_mel:  # each row on its own scale: a few rows of hidden states are a hundred times larger than the others
        array = (array - array.mean(1, keepdims=True)) / (array.std(1, keepdims=True) + 1e-6)
    low, high = np.percentile(array, [1, 99])
    axes.imshow(
        array,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        extent=(0, step.array.shape[1] / step.rate_hz, 0, len(step.array)),
        cmap="magma" if is_mel else "RdBu_r",
        vmin=low,
        vmax=high,
    )
    axes.set_ylabel("mel band" if is_mel else "dimension")


def _thinned(array_DF: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = (max(1, size // most) for size, most in zip(array_DF.shape, (MAX_ROWS, MAX_COLUMNS), strict=True))
    return array_DF[::rows, ::columns]


def _codes(axes: Any, step: Step) -> None:
    stop = step.array.shape[1] / step.rate_hz
    axes.imshow(step.array, aspect="auto", interpolation="nearest", cmap="turbo", extent=(0, stop, len(step.array), 0))
    axes.set_yticks(np.arange(len(step.array)) + 0.5, step.rows)
    if step.array.shape[1] <= 150:
        for row, codes in enumerate(step.array.tolist()):
            for frame, code in enumerate(codes):
                axes.text(
                    (frame + 0.5) / step.rate_hz,
                    row + 0.5,
                    str(code),
                    ha="center",
                    va="center",
                    fontsize=5,
                    rotation=90,
                    color="white",
                )


def _posteriors(axes: Any, step: Step) -> None:
    stop = step.array.shape[1] / step.rate_hz
    axes.imshow(
        step.array,
        aspect="auto",
        interpolation="nearest",
        cmap="Blues",
        vmin=0,
        vmax=1,
        extent=(0, stop, len(step.array), 0),
    )
    axes.set_yticks(np.arange(len(step.array)) + 0.5, step.rows, fontsize=7)
    for word in step.words:
        axes.axvspan(word.start_s, word.stop_s, ymin=0, ymax=1, fill=False, linewidth=0.6, edgecolor="tab:red")
        axes.text(word.start_s, 0, word.text, rotation=30, fontsize=8, va="bottom", color="tab:red")


def _choices(axes: Any, step: Step) -> None:
    """A column a token, a row a choice."""
    extent = (0, step.array.shape[1], len(step.array), 0)
    axes.imshow(step.array, aspect="auto", interpolation="nearest", cmap="Blues", vmin=0, vmax=1, extent=extent)
    axes.set_yticks(np.arange(len(step.array)) + 0.5, step.rows, fontsize=7)
    size = min(8.0, 240.0 / max(1, step.array.shape[1]))
    for column, texts in enumerate(step.cells):
        for row, text in enumerate(texts):
            color = "white" if step.array[row, column] > 0.6 else "black"
            shown = text.replace("$", r"\$")  # which would begin a formula
            axes.text(column + 0.5, row + 0.5, shown, ha="center", va="center", fontsize=size, color=color)


def _page(trace: Trace, pictures: list[bytes]) -> str:
    name, seconds = trace.source.rsplit("/", 1)[-1], len(trace.waveform_T) / MODEL_SAMPLE_RATE
    rows = [(str(n), step.name, _shape(step), _rate(step)) for n, step in enumerate(trace.steps, 1)]
    sections = "".join(
        f'<section><h2>{number}. {html.escape(step.name)}</h2><p class="soft">{_shape(step)}, {_rate(step)}</p>'
        f"<p>{html.escape(step.meaning)}</p>"
        f'<img alt="{html.escape(step.name)} over time; {_shape(step)}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'
        "</section>"
        for number, (step, content) in enumerate(zip(trace.steps, pictures, strict=True), 1)
    )
    text = "" if trace.text is None else f'<p class="text">{html.escape(trace.text) or "(no words)"}</p>'
    cut = f"; the first {seconds:g} s of it" if trace.is_cut else ""
    sound = base64.b64encode(_wav(trace.waveform_T)).decode()
    body = (
        f'<main id="overview"><p>{seconds:.2f} s{cut}</p>{text}<audio controls src="data:audio/wav;base64,{sound}"></audio>'
        f"{table(('', 'step', 'shape', 'rate'), rows)}{sections}</main>"
    )
    return document(f"{name} through {trace.model}", body, STYLE)


def _shape(step: Step) -> str:
    if step.kind == "wave":
        return f"{len(step.array)} samples"
    if step.kind == "choices":
        return f"{step.array.shape[1]} tokens x {len(step.array)} choices"
    what = {"codes": "codebooks", "posteriors": "letters"}.get(
        step.kind, "mel bands" if "mel" in step.name else "dimensions"
    )
    return f"{step.array.shape[1]} frames x {len(step.array)} {what}"


def _rate(step: Step) -> str:
    return f"{step.rate_hz:g} Hz" if step.rate_hz else "a column a token"


def _wav(waveform_T: NDArray[np.int16]) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, waveform_T, MODEL_SAMPLE_RATE, format="WAV")
    return sink.getvalue()
