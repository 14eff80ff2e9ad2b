"""INPUT arguments -> entries: files, folders, globs, tar and Parquet shards, manifests, in any mix."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from audiomill.errors import InputError
from audiomill.sources.entry import AUDIO_SUFFIXES, Entries, Entry, Sidecar, is_hidden, stem, suffix
from audiomill.sources.folder_texts import FolderTexts, check_no_table
from audiomill.sources.manifest_row import Note
from audiomill.sources.manifests import Supervision, is_manifest, read_manifest
from audiomill.sources.shard import MAX_SIDECAR_BYTES, SIDECAR_SUFFIXES, SINGLE
from audiomill.sources.shards import shard_of
from audiomill.storage.fs import SIGNED, Place, retried, special_kind, version_of
from audiomill.storage.urls import folder_of, protocol, readable, real_folders, real_path, source_of

METADATA_FILES = {"metadata.csv", "metadata.tsv", "metadata.jsonl"}
_Found = Entry | Supervision | Note
OUTPUT_FILES = {"run.json", "plan.parquet", "ledger"}
"""A folder with these was written by a run; what is in it is no input."""


@dataclass
class Listing:
    """What the inputs hold. `ignored`: files in folders that are no audio, by suffix; `manifest`: the last of
    them that is one; `column`: see `list_inputs`; `notes`: what was unusual about a file; `signed`: the URLs that can be
    read, by the sources that stand for them without credentials."""

    entries: Entries = field(default_factory=Entries)
    notes: list[str] = field(default_factory=list)
    signed: dict[str, str] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    num_duplicates: int = 0
    column: str | None = None
    manifest: str | None = None

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        """fsspec options with which every entry can be read."""
        return {**options, SIGNED: self.signed} if self.signed else options

    def describe_ignored(self) -> str | None:
        """How many files of which kinds are left out of folders."""
        if not self.ignored:
            return None
        kinds = self.ignored.most_common()
        text = "ignored: " + ", ".join(f"{count} {kind}" for kind, count in kinds[:MAX_KINDS_SHOWN])
        others = kinds[MAX_KINDS_SHOWN:]
        return text + (f" and {sum(count for _, count in others)} of {len(others)} other kinds" if others else "")


MAX_KINDS_SHOWN = 12


def list_inputs(
    inputs: tuple[str, ...], options: dict[str, Any], audio_root: str | None, output: str, column: str | None = None
) -> Listing:
    """Every recording that the inputs name, once each, in input order and sorted inside folders.

    Args:
        inputs: paths and URLs as typed.
        options: fsspec options.
        audio_root: see `manifests.resolve`.
        output: the output folder, left out when it lies inside an input.
        column: of Parquet shards, with the audio; None: by name and type.

    Raises:
        InputError: an input does not exist, or nothing is left to do.
    """
    listing = Listing(column=column)
    supervisions: defaultdict[str, list[Supervision]] = defaultdict(list)
    seen: dict[bytes, int] = {}
    texts_apart = 0
    real = real_folders()
    for text in inputs:
        if output and source_of(text).rstrip("/") == source_of(output).rstrip("/"):
            raise InputError(f"{text}: is the input and the --output; name another folder for the tables")
        for result in _expand(Place(text, options), audio_root, source_of(output) if output else "\0", listing):
            if isinstance(result, Note):
                listing.notes.append(result.text)
                continue
            if isinstance(result, Supervision):
                supervisions[readable(result.recording_id)].append(result)
                continue
            result = _named_once(result, listing).as_text
            key = bytes.fromhex(result._replace(source=real_path(result.source, real)).id)
            if key in seen:
                listing.num_duplicates += 1
                texts_apart += result.reference is not None and seen[key] != hash(result.reference)
            else:
                seen[key] = hash(result.reference)
                listing.entries.append(result)
    if texts_apart:
        listing.notes.append(f"{texts_apart} named again with another text: the first text of each is taken")
    if supervisions:
        listing.entries = Entries(_with_reference(entry, supervisions) for entry in listing.entries)
    if not listing.entries:
        hint = f" ({sum(listing.ignored.values())} other files ignored)" if listing.ignored else ""
        if listing.manifest is not None:
            hint += f"; {listing.manifest} is a manifest: name it as INPUT"
        raise InputError(
            f"{', '.join(inputs)}: no audio found{hint}; expected audio files, tar or Parquet shards, or a manifest"
        )
    return listing


def _named_once(entry: Entry, listing: Listing) -> Entry:
    """With the one name of its source; what is needed to read it is kept aside."""
    source = source_of(entry.source)
    if source != entry.source and protocol(source) in ("http", "https"):
        listing.signed[source] = entry.source
    return entry._replace(source=source)


def _with_reference(entry: Entry, supervisions: dict[str, list[Supervision]]) -> Entry:
    in_order = sorted(supervisions.get(entry.key or "", []), key=lambda s: s.start)
    return entry._replace(reference=" ".join(s.text for s in in_order)) if in_order else entry


def _expand(place: Place, audio_root: str | None, output: str, listing: Listing) -> Iterator[_Found]:
    try:
        fs, path = place.fs, place.path
        kind = _kind(place)
    except PermissionError as error:
        raise InputError(
            f"{place.url}: permission denied ({error}); check the credentials or --storage-options"
        ) from error
    if kind == "glob":
        matches = retried(lambda: fs.glob(path, detail=True))
        if not matches:
            raise InputError(f"{place.url}: nothing matches this pattern")
        for folder in sorted(match for match, detail in matches.items() if detail.get("type") == "directory"):
            yield from _folder(place, _files_below(place, folder, listing), output, listing)
        files = (match for match, detail in matches.items() if detail.get("type") != "directory")
        manifests = {_url(place, match) for match in files if is_manifest(match)}
        for manifest in sorted(manifests):
            yield from read_manifest(Place(manifest, place.options), audio_root)
        others = {match: detail for match, detail in matches.items() if _url(place, match) not in manifests}
        yield from _folder(place, others, output, listing, _texts_beside(place, others))
    elif kind == "folder":
        yield from _folder(place, _files_below(place, path, listing), output, listing)
    else:
        try:
            detail = retried(lambda: fs.info(path)) if kind == "file" else {}
            yield from _file(place, detail, audio_root, listing.column)
        except FileNotFoundError as error:
            raise InputError(f"{place.url}: not found ({error}); check the address") from error


def _kind(place: Place) -> str:
    """file, folder, glob, or (over http) unknown until read."""
    fs, path = place.fs, place.path
    has_magic = any(mark in path for mark in "*?[")
    if protocol(place.url) in ("http", "https"):
        return "glob" if "*" in path else "folder" if path.endswith("/") else "remote"
    if retried(lambda: fs.isfile(path)):
        return "file"
    if retried(lambda: fs.isdir(path)):
        return "folder"
    if has_magic:
        return "glob"
    special = special_kind(place)
    if special is not None:
        raise InputError(f"{place.url}: expected a file or folder, got {special}; write its audio to a file first")
    is_offline = protocol(place.url) == "hf" and os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
    why = "HF_HUB_OFFLINE is set: unset it" if is_offline else "check the path"
    raise InputError(f"{place.url}: no such file or folder; {why}")


def _file(place: Place, detail: dict[str, Any], audio_root: str | None, column: str | None) -> Iterator[_Found]:
    """A file named outright: a manifest, a shard, or else a recording whatever its suffix."""
    source = place.url if protocol(place.url) in ("http", "https") else source_of(place.url)
    if is_manifest(place.url):
        yield from read_manifest(place, audio_root)
        return
    shard = shard_of(place.url)
    entries = shard.entries(place, source, column)
    if entries is None:
        raise InputError(f"{place.url}: {shard.missing}")
    beside = _texts_of(source, place.options) if shard is SINGLE and detail else {}
    for entry in entries:
        if isinstance(entry, Note):
            yield entry
            continue
        if shard is SINGLE:
            entry = entry._replace(size=detail.get("size"), sidecars=_sidecars(source, beside))
        yield entry._replace(version=version_of(detail))


def _texts_of(source: str, options: dict[str, Any]) -> dict[str, Any]:
    """Sizes of the texts of one recording, by name; its folder may be too large to be listed for it."""
    texts: dict[str, Any] = {}
    for kind in SIDECAR_SUFFIXES:
        text = Place(f"{stem(source)}.{kind}", options)
        try:
            texts[text.url] = retried(lambda text=text: text.fs.info(text.path)).get("size")  # type: ignore[misc]
        except OSError:
            continue
    return texts


def _texts_beside(place: Place, paths: Iterable[str]) -> dict[str, Any]:
    """Sizes of the texts in the folders of files that a pattern names."""
    texts: dict[str, Any] = {}
    for folder in sorted({path.rpartition("/")[0] for path in paths}):
        try:
            each = retried(lambda folder=folder: place.fs.ls(folder, detail=True))  # type: ignore[misc]
        except OSError:
            continue  # a folder whose files may be read, but not listed
        texts |= {
            _url(place, str(one["name"])): one.get("size") for one in each if suffix(one["name"]) in SIDECAR_SUFFIXES
        }
    return texts


def _files_below(place: Place, folder: str, listing: Listing) -> dict[str, dict[str, Any]]:
    """Files below a folder, with type and size; links to folders are followed, each folder once."""
    if not place.is_local:
        return dict(retried(lambda: place.fs.find(folder, detail=True)))
    results: dict[str, dict[str, Any]] = {}
    root = os.path.realpath(folder)
    seen, waiting, linked = {root}, [folder], list[str]()
    while waiting or linked:  # a folder keeps its own name, wherever links to it are
        try:
            with os.scandir(waiting.pop() if waiting else linked.pop(0)) as each:
                children = list(each)
        except PermissionError:
            listing.ignored["(folder without permission)"] += 1
            continue
        if {child.name for child in children} >= OUTPUT_FILES:
            listing.ignored["(output of an earlier run)"] += 1
            continue
        for child in children:
            if not _is_folder(child):
                results[child.path] = _details(child)
                continue
            real = os.path.realpath(child.path)
            if real in seen or f"{root}/".startswith(f"{real}/"):
                listing.ignored["(link to a folder that is here already)"] += 1
            elif child.is_symlink():
                linked.append(child.path)
            else:
                seen.add(real)
                waiting.append(child.path)
        if not waiting:
            linked = [path for path in linked if os.path.realpath(path) not in seen]
            seen |= {os.path.realpath(path) for path in linked[:1]}
    return results


def _is_folder(child: os.DirEntry[str]) -> bool:
    try:
        return child.is_dir()
    except OSError:
        return False


def _details(child: os.DirEntry[str]) -> dict[str, Any]:
    """As fsspec gives them. Size 0 for a link to nothing: reading it says so."""
    try:
        result = child.stat()
    except OSError:
        return {"type": "file", "size": 0}
    return {"type": "file", "size": result.st_size, "mtime": result.st_mtime}


def _folder(
    place: Place,
    result: dict[str, dict[str, Any]],
    output: str,
    listing: Listing,
    beside: Mapping[str, Any] | None = None,
) -> Iterator[Entry | Note]:
    """Audio files and shards below a folder, or what a glob matched; the rest is counted as ignored. `beside`: sizes of texts that
    the pattern left out."""
    details = {_url(place, path): each for path, each in result.items() if each.get("type") != "directory"}
    sizes = {url: each.get("size") for url, each in details.items()}
    versions = {url: version_of(each) for url, each in details.items()}
    named = re.split(r"[*?\[]", place.path, maxsplit=1)  # the user's own words, whatever they name, hide nothing
    root = _url(place, named[0] if len(named) == 1 else named[0].rpartition("/")[0])
    texts = {**sizes, **(beside or {})}
    audio_stems = {stem(url) for url in sizes if suffix(url) in AUDIO_SUFFIXES}
    shown = [url for url in sorted(sizes) if not is_hidden(url.removeprefix(root))]
    shown = [url for url in shown if not url.startswith(output.rstrip("/") + "/")]
    check_no_table(place, details)
    metadata_rows = _metadata_rows(
        [url for url in shown if url.rsplit("/", 1)[-1].lower() in METADATA_FILES], place.options
    )
    listed = FolderTexts(shown, place.options)
    for url in shown:
        each = Place(url, place.options)
        if url in metadata_rows.files or url in listed.files:
            continue
        shard = shard_of(url)
        entries = None if shard is SINGLE else shard.entries(each, url, listing.column)
        if entries is not None:
            for entry in entries:
                if isinstance(entry, Entry):
                    entry = listed.of_member(entry)._replace(version=versions[url])
                yield entry
        elif suffix(url) in AUDIO_SUFFIXES:
            for row in metadata_rows.rows.pop(url, [Entry(url)]):
                row = row._replace(size=sizes[url], version=versions[url], sidecars=_sidecars(url, texts))
                yield listed.of_file(row)
        elif not (suffix(url) in SIDECAR_SUFFIXES and stem(url) in audio_stems):
            listing.ignored[suffix(url) or "(none)"] += 1
            listing.manifest = url if is_manifest(url) else listing.manifest
    yield from itertools.chain.from_iterable(metadata_rows.rows.values())
    yield from map(Note, listed.notes)


class _MetadataRows(NamedTuple):
    """What metadata files in a folder say, by the file that it is said of. `files`: their own names."""

    files: set[str]
    rows: dict[str, list[Entry]]


def _metadata_rows(urls: list[str], options: dict[str, Any]) -> _MetadataRows:
    """Rows of Hugging Face's audiofolder layout (huggingface.co/docs/datasets/audio_load): they tell of files beside
    them, and name those that should be there. Nobody asked for such a file, so it names nothing outside its folder. One
    that holds something else tells nothing."""
    metadata_rows = _MetadataRows(set(), {})
    for url in urls:
        try:
            rows = [entry for entry in read_manifest(Place(url, options), folder_of(url)) if isinstance(entry, Entry)]
        except InputError:
            continue
        metadata_rows.files.add(url)
        for row in rows:
            metadata_rows.rows.setdefault(row.source, []).append(row)
    return metadata_rows


def _sidecars(url: str, sizes: Mapping[str, Any]) -> tuple[Sidecar, ...] | None:
    kinds = [each for kind in SIDECAR_SUFFIXES for each in (kind, kind.upper())]
    names = {kind: f"{stem(url)}.{kind}" for kind in kinds}
    results = [Sidecar(kind, 0, int(sizes[name] or 0)) for kind, name in names.items() if name in sizes]
    return tuple(sidecar for sidecar in results if sidecar.size <= MAX_SIDECAR_BYTES) or None


def _url(place: Place, path: str) -> str:
    return path if place.is_local else str(place.fs.unstrip_protocol(path))
