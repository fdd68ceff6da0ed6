"""Where in a folder or zip the images, their labels and the sibling trees are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from nerfstudio_gan3d.data.archive import FileTree, open_tree
from nerfstudio_gan3d.data.decode import SUFFIXES
from nerfstudio_gan3d.data.errors import DataError

SIBLINGS = ("mask", "label", "depth")
LABEL_FILE = "dataset.json"
META_FILE = "meta.json"
INFO_FILE = "labels.json"
DEPTH_ENDING = "_depth.png"
"""In G3DR's layout the depth of NAME.jpg lies beside it, in NAME with this ending."""

DepthKind = Literal["none", "z", "relative"]
"""z: the tree depth/, in scene units, 0 is background. relative: files NAME_depth.png (G3DR), on a
scale of each image's own, near is small. none: no depth."""


@dataclass(frozen=True)
class Layout:
    """Names of the files of an image set inside its `FileTree`."""

    images: dict[str, str]
    """Image name (as in dataset.json) to file name, sorted by name."""
    label_file: str | None
    """The dataset.json, None when there is none."""
    meta_file: str | None
    """The meta.json, None when there is none."""
    siblings: dict[str, dict[str, str]] = field(default_factory=dict)
    """For each of mask, label, depth that exists: image name to file name."""
    info_file: str | None = None
    """The labels.json of the label maps, None when there are no label maps or no such file."""
    depth_kind: DepthKind = "none"
    """What the files of the sibling "depth" hold."""


def open_layout(path: Path) -> tuple[FileTree, Layout]:
    """Open a folder or zip and find its parts.

    Accepted: ``dataset.json`` at the top (EG3D) or in ``images/``, or no ``dataset.json``; all of
    it may lie in one further folder, as zips of a folder do. The trees ``mask/``, ``label/`` and
    ``depth/`` stand beside the images or at the top, ``labels.json`` beside ``label/`` or in it. A
    folder called ``images`` that has such trees beside itself may be given as well.

    Without dataset.json and trees, a file ``NAME_depth.png`` beside an image ``NAME.jpg`` (or
    another image file) makes it a set of G3DR's: every image has such a file, in one folder or in
    a folder a class, and they are no images.

    Raises:
        DataError: nothing to open, no image, two images of one name, a dataset.json elsewhere, a
            sibling tree that lacks the file of an image, a label map without an image, two
            labels.json; or, in G3DR's layout, an image without its depth file or the reverse.
    """
    path, only = _step_out(path)
    tree = open_tree(path, only)
    image_root, set_root, label_file = _roots(tree)
    images = _images(tree, image_root, set_root)
    if not images:
        raise DataError(f"{path}: no images; expected files that end in {', '.join(SUFFIXES)}")
    meta = set_root + META_FILE
    meta = meta if meta in tree.names else None
    siblings = {k: found for k in SIBLINGS if (found := _sibling(tree, set_root, k, images))}
    if label_file is None and not siblings and (depth := _depth_beside(tree, images)):
        pictures = {name: images[name] for name in images if name in depth}
        return tree, Layout(pictures, None, meta, {"depth": depth}, None, "relative")
    # Without label maps a file of this common name may be anything.
    info = _info_file(tree, set_root) if "label" in siblings else None
    kind: DepthKind = "z" if "depth" in siblings else "none"
    return tree, Layout(images, label_file, meta, siblings, info, kind)


def _step_out(path: Path) -> tuple[Path, tuple[str, ...] | None]:
    path = path.expanduser().absolute()
    inside = any((path / kind).is_dir() for kind in SIBLINGS)
    beside = any((path.parent / kind).is_dir() for kind in SIBLINGS)
    if path.name == "images" and path.is_dir() and beside and not inside:
        return path.parent, ("images", META_FILE, INFO_FILE, *SIBLINGS)
    return path, None


def _roots(tree: FileTree) -> tuple[str, str, str | None]:
    names = set(tree.names)
    tops = {name.split("/", 1)[0] + "/" for name in names if "/" in name}
    prefixes = ["", tops.pop()] if len(tops) == 1 else [""]
    for prefix in prefixes:
        for image_root in (prefix, prefix + "images/"):
            if image_root + LABEL_FILE in names:
                return image_root, prefix, image_root + LABEL_FILE
    for name in tree.names:
        if PurePosixPath(name).name == LABEL_FILE:
            raise DataError(
                f"{tree.describe(name)}: found here, but {LABEL_FILE} must lie at the top of the "
                "set or in its images/"
            )
    for prefix in prefixes:
        if any(_is_image(name) and name.startswith(prefix + "images/") for name in names):
            return prefix + "images/", prefix, None
    return "", "", None


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _images(tree: FileTree, image_root: str, set_root: str) -> dict[str, str]:
    trees = tuple(set_root + kind + "/" for kind in SIBLINGS)
    files = [
        name
        for name in tree.names
        if name.startswith(image_root) and not name.startswith(trees) and _is_image(name)
    ]
    stems: dict[str, str] = {}
    for file in files:
        stem = _stem(file)
        if stem in stems:
            raise DataError(
                f"{tree.path}: two images of one name, {stems[stem]!r} and {file!r}; rename one"
            )
        stems[stem] = file
    return {file[len(image_root) :]: file for file in sorted(files)}


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _sibling(
    tree: FileTree, set_root: str, kind: str, images: dict[str, str]
) -> dict[str, str] | None:
    root = set_root + kind + "/"
    files = [name for name in tree.names if name.startswith(root) and _is_image(name)]
    if not files:
        return None
    by_stem = {_stem(name[len(root) :]): name for name in files}
    found: dict[str, str] = {}
    for name in images:
        # Labels at the top of a set may call an image "images/0001.png".
        file = by_stem.get(_stem(name)) or by_stem.get(_stem(name.removeprefix("images/")))
        if file is None:
            raise DataError(
                f"{tree.describe(root)}: no {kind} file for the image {name!r}; "
                "files are matched by name: add it or remove the image"
            )
        found[name] = file
    if kind == "label":
        _check_all_used(tree, files, found)
    return found


def _depth_beside(tree: FileTree, images: dict[str, str]) -> dict[str, str]:
    """The depth file of each image in G3DR's layout; empty when no image has one."""
    files = {name: file for name, file in images.items() if name.endswith(DEPTH_ENDING)}
    owners = {_stem(name): name for name in images if name not in files}
    found: dict[str, str] = {}
    for name, file in files.items():
        owner = owners.get(name.removesuffix(DEPTH_ENDING))
        if owner is not None:
            found[owner] = file
    if not found:
        return {}
    for stem, name in owners.items():
        if name not in found:
            raise DataError(
                f"{tree.describe(images[name])}: has no depth, though other images have; add "
                f"{PurePosixPath(stem).name + DEPTH_ENDING} beside it or remove the image"
            )
    used = set(found.values())
    for name, file in files.items():
        if file not in used:
            raise DataError(
                f"{tree.describe(file)}: a depth file without an image; remove it or add "
                f"{PurePosixPath(name).name.removesuffix(DEPTH_ENDING)}.jpg beside it"
            )
    return found


def _check_all_used(tree: FileTree, files: list[str], found: dict[str, str]) -> None:
    used = {_stem(file): file for file in found.values()}
    for file in files:
        other = used.get(_stem(file))
        if other is None:
            raise DataError(
                f"{tree.describe(file)}: a label map without an image; files are matched by "
                "name: remove it or add the image"
            )
        if other != file:
            raise DataError(
                f"{tree.describe(file)}: a second label map beside "
                f"{PurePosixPath(other).name!r}; keep one of them"
            )


def _info_file(tree: FileTree, set_root: str) -> str | None:
    places = [set_root + INFO_FILE, set_root + "label/" + INFO_FILE]
    there = [place for place in places if place in tree.names]
    if len(there) > 1:
        raise DataError(
            f"{tree.describe(there[1])}: a second {INFO_FILE}; the other is "
            f"{tree.describe(there[0])}: keep one of them"
        )
    return there[0] if there else None
