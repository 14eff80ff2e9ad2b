"""Models as callable classes for `map_batches` of any Ray Dataset. Ray itself is not imported here.

from audiomill.ray import Transcriber

dataset = ray.data.read_parquet("calls/")  # a column of paths, bytes, arrays or Hugging Face Audio values
texts = dataset.map_batches(
    Transcriber, fn_constructor_args=("openai/whisper-tiny.en",), batch_format="pyarrow", batch_size=64, concurrency=2
)
"""

from __future__ import annotations

from audiomill.ray.transforms import Embedder, Encoder, Transcriber

__all__ = ["Embedder", "Encoder", "Transcriber"]
