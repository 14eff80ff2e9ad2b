"""audiomill codebook: other people's codebooks -> ours."""

from __future__ import annotations

from typing import Any

import click

from audiomill.errors import InputError, UsageError
from audiomill.storage.fs import Place
from audiomill_jobs.options import JsonMapping, WithExamples

EXAMPLES = """\
Examples:
  audiomill codebook hubert_base_ls960_L9_km500.bin --layer 9 --output km500.safetensors
  audiomill codebook centroids.npy --layer 6 --model facebook/hubert-base-ls960 --output km100.safetensors
"""


@click.command(cls=WithExamples, epilog=EXAMPLES)
@click.argument("file", metavar="FILE")
@click.option("--layer", type=int, default=None, help="Hidden state it is for: 9 is the output of the ninth layer.")
@click.option("--model", default="", metavar="TEXT", help="Name of the model it was fitted on, for people.")
@click.option("--output", required=True, metavar="TEXT", help="The codebook, a .safetensors file.")
@click.option("--storage-options", type=JsonMapping(), metavar="JSON", default=None, help="fsspec options as JSON.")
def codebook(file: str, layer: int | None, model: str, output: str, storage_options: dict[str, Any] | None) -> None:
    """Convert a codebook of scikit-learn, fairseq or textless-lib (.km, .bin, joblib), .npy or .safetensors.

    Nothing is unpickled: the file is walked as data and only the matrix of cluster centres is taken. The new codebook
    is not tied to certain weights.
    """
    from audiomill.models.codes.codebooks import Codebook, read_codebook, write_codebook
    from audiomill.models.codes.km_files import centroids_of

    place = Place(file, storage_options or {})
    if not output.endswith(".safetensors"):
        raise UsageError(f"--output {output}: expected a file name that ends with .safetensors")
    if file.endswith((".npy", ".safetensors")):
        result = read_codebook(place, layer)
        centroids, number, name = result.centroids_VD, result.layer, model or result.model
    elif layer is None:
        raise UsageError("--layer is missing: say which hidden state the codebook is for, e.g. --layer 9")
    else:
        try:
            centroids, number, name = centroids_of(place.read(), file), layer, model
        except FileNotFoundError as error:
            raise InputError(f"{file}: no such file") from error
    write_codebook(
        Place(output, storage_options or {}),
        Codebook(centroids_VD=centroids, layer=number, model=name, fingerprint=None),
    )
    click.echo(f"{output}: {centroids.shape[0]} entries of {centroids.shape[1]} values, layer {number}")
