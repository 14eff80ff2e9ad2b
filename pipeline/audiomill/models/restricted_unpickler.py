"""A restricted unpickler: tensors of foreign files, read without running what is in them: safetensors, pickles of torch, TorchScript archives.

A pickle names the functions that it wants called. Here only those that make a tensor are: every other name becomes an
`UnpickledStub` that keeps what it is given and does nothing.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from audiomill.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

HEAD_BYTES = 2**21
"""Of a file in torch's old format: the names of its tensors stand at its head."""
MOST_DEEP = 12
UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, AttributeError, TypeError, StopIteration, IndexError,
    zipfile.BadZipFile, struct.error,
)  # fmt: skip
"""What a damaged or strange file raises."""


class UnpickledStub:
    """In the place of whatever a pickle wanted to make: the name that it was asked by, what it was given, and its state."""

    name = ""
    given: tuple[Any, ...] = ()
    state: Any = None
    content: Any = None

    def __new__(cls, *given: Any, **named: Any) -> UnpickledStub:
        """Takes anything."""
        result = super().__new__(cls)
        result.given = given
        return result

    def __setitem__(self, key: Any, value: Any) -> None:
        """Of what wanted to be a mapping."""

    def append(self, value: Any) -> None:
        """Of what wanted to be a list."""

    def extend(self, values: Any) -> None:
        """The same."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *given: Any, **named: Any) -> UnpickledStub:
        return UnpickledStub()


class StubUnpickler(pickle._Unpickler):
    """An unpickler that makes plain values, what it is allowed to, and stubs of the rest. Python's own, whose memory no number
    in a file can ask for.

    Args:
        stream: of the pickle.
        allowed: (module, name) -> what stands for it.
        on_state: called with every stub whose state was set, and its state.
    """

    def __init__(
        self,
        stream: IO[bytes],
        allowed: Mapping[tuple[str, str], Any],
        on_state: Callable[[UnpickledStub], None] = lambda stub: None,
    ) -> None:
        super().__init__(stream)
        self._allowed, self._on_state = allowed, on_state

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._allowed:
            return self._allowed[module, name]
        on_state = self._on_state

        def setstate(stub: UnpickledStub, state: Any) -> None:
            stub.state = state
            on_state(stub)

        return type("UnpickledStub", (UnpickledStub,), {"name": f"{module}.{name}", "__setstate__": setstate})


class _Making:
    """Calls a function of torch that makes a tensor, and lets a pickle change nothing of it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *given: Any) -> Any:
        return self._make(*given)

    def __setstate__(self, state: Any) -> None:
        """Nothing."""


def names_tensor(path: Path, *names: str) -> bool:
    """Whether a file, or the weights of a folder, has tensors of all these names. Nothing is unpickled.

    Args:
        path: .pt file, or folder with model.safetensors, pytorch_model.bin or one .pt file.
        names: as they stand in the file.
    """
    result = weight_file(path)
    if result is None:
        return False
    head = _head(result, result.stat().st_mtime_ns)
    return all(name.encode() in head for name in names)


def weight_file(path: Path) -> Path | None:
    """The file with the weights; None: there is none."""
    if path.is_file():
        return path
    for pattern in ("*.safetensors", "pytorch_model*.bin", "*.pt", "*.ckpt"):
        if result := sorted(path.glob(pattern)):
            return result[0]
    return None


@cache
def _head(path: Path, changed: int) -> bytes:
    """What names the tensors of a file."""
    with path.open("rb") as handle:
        if path.suffix == ".safetensors":
            size = int.from_bytes(handle.read(8), "little")
            return handle.read(min(size, HEAD_BYTES))
        if zipfile.is_zipfile(handle):
            with zipfile.ZipFile(handle) as archive:
                inside = next((each for each in archive.infolist() if each.filename.endswith("/data.pkl")), None)
                return b"" if inside is None else archive.open(inside).read(HEAD_BYTES)
        handle.seek(0)
        return handle.read(HEAD_BYTES)


def checkpoint_tensors(path: Path, root: str) -> dict[str, Tensor]:
    """Tensors of a file or folder by name.

    Args:
        path: see `names_tensor`.
        root: name of a tensor that tells where the model begins: what stands before it in a nested file is left out.

    Raises:
        ModelError: no such tensor, or a file that cannot be read.
    """
    return _from_root(_all_tensors(path), root, path)


def save_plain(path: Path, folder: Path) -> int:
    """Writes the tensors of a file or folder as `folder`/model.safetensors, beside its config.json; returns how many there are.

    Raises:
        ModelError: no weights, or a file that cannot be read.
    """
    from safetensors.torch import save_file

    if path.is_dir() and len([*path.glob("*.safetensors"), *path.glob("pytorch_model*.bin")]) > 1:
        raise ModelError(f"{path}: its weights are in several files; they are read as they are, without --save")
    tensors = {name: tensor.contiguous().clone() for name, tensor in _all_tensors(path).items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    if (path / "config.json").is_file():
        (folder / "config.json").write_bytes((path / "config.json").read_bytes())
    return len(tensors)


def _all_tensors(path: Path) -> dict[str, Tensor]:
    result = weight_file(path)
    if result is None:
        raise ModelError(f"{path}: no weights found")
    if result.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(result))
    try:
        content = _plain(result)
    except UNREADABLE as error:
        raise ModelError(f"{path}: cannot be read as a checkpoint ({' '.join(str(error).split())[:200]})") from error
    return dict(_flat(content, "", MOST_DEEP))


def _plain(path: Path) -> Any:
    """The content of a file of torch, with `UnpickledStub` for what is neither tensor nor plain value."""
    import torch

    is_archive = zipfile.is_zipfile(path)
    if not (is_archive and _holds_code(path)):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            if not is_archive:
                raise
    with zipfile.ZipFile(path) as archive:
        name = next(each for each in archive.namelist() if each.endswith("/data.pkl"))
        return _ArchiveUnpickler(archive, name).load()


def _holds_code(path: Path) -> bool:
    """Whether an archive is TorchScript, which torch would run."""
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


class _ArchiveUnpickler(StubUnpickler):
    """Makes tensors of an archive's storages."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        import torch

        makers = ("_rebuild_tensor_v2", "_rebuild_parameter")
        allowed = {("torch._utils", each): _Making(getattr(torch._utils, each)) for each in makers}
        super().__init__(archive.open(name), {**allowed, ("collections", "OrderedDict"): OrderedDict})
        self._archive, self._folder = archive, name.removesuffix("data.pkl")

    def find_class(self, module: str, name: str) -> Any:
        return name if module == "torch" and name.endswith("Storage") else super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        """Of `("storage", kind, key, device, count)`."""
        import torch

        kind, key = pid[1], pid[2]
        dtype = {"FloatStorage": torch.float32, "DoubleStorage": torch.float64, "LongStorage": torch.int64}.get(kind)
        dtype = dtype or {"HalfStorage": torch.float16, "IntStorage": torch.int32, "BoolStorage": torch.bool}.get(kind)
        if dtype is None:
            raise pickle.UnpicklingError(f"unknown storage {kind}")
        content = bytearray(self._archive.read(f"{self._folder}data/{key}"))
        untyped = torch.frombuffer(content, dtype=torch.uint8).untyped_storage()
        return torch.storage.TypedStorage(  # type: ignore[no-untyped-call]
            wrap_storage=untyped, dtype=dtype, _internal=True
        )


def _flat(value: Any, name: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    """Every tensor inside, by the names on the way to it."""
    import torch

    if isinstance(value, torch.Tensor):
        yield name, value
    state = value.state if isinstance(value, UnpickledStub) else value
    if isinstance(state, dict) and depth:
        for key, each in state.items():
            yield from _flat(each, f"{name}.{key}" if name else str(key), depth - 1)


def _from_root(tensors: dict[str, Tensor], root: str, path: Path) -> dict[str, Tensor]:
    """Those of the model, by its own names."""
    start = next((name.removesuffix(root) for name in tensors if name == root or name.endswith("." + root)), None)
    if start is None:
        raise ModelError(f"{path}: has no tensor {root}, so it is no checkpoint of this kind")
    return {name.removeprefix(start): tensor.contiguous() for name, tensor in tensors.items() if name.startswith(start)}


def loaded_into(network: Any, tensors: dict[str, Any], path: Path) -> Any:
    """A network of torch with these weights, in evaluation mode; tensors that it has no place for are left aside.

    Raises:
        ModelError: one is missing, or has another shape.
    """
    state_dict = network.state_dict()
    try:
        network.load_state_dict({name: tensor for name, tensor in tensors.items() if name in state_dict})
    except RuntimeError as error:
        raise ModelError(f"{path}: tensors do not fit ({' '.join(str(error).split())[:200]})") from error
    return network.eval()
