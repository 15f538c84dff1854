"""Images in class folders, and the files that are passed over."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

Sample = tuple[str, int]  # path, label
HIDDEN, LINKED, SPECIAL, LOOSE = "hidden", "linked again", "not a regular file", "outside class folders"


@dataclass
class ImageTree:
    """Images in class folders.

    Attributes:
        classes: names of the class folders, in label order.
        samples: (path, label), in the order of torchvision's ``ImageFolder``.
        passed_over: number of files per extension that is not read, and of entries that are ``HIDDEN`` etc.
    """

    classes: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


def find_images(folder: Path) -> ImageTree:
    """Find the images below the class folders of `folder`, without opening one.

    Files and folders whose names begin with a dot, and ``__MACOSX``, are hidden. Symbolic links are followed, each
    folder once: a link to a folder that is read anyway, or to one above, is passed over. Only regular files are images.

    Raises:
        ValueError: no such folder, no class folders, a class without images, a link to nothing, or one folder as two
            classes.
    """
    walk = _Walk()
    try:
        walk.run(folder)
    except OSError as error:
        raise ValueError(f"no images in class folders under {folder}: {error.filename}: {error.strerror}") from None
    if walk.dangling:
        n_links = counted(len(walk.dangling), "link")
        raise ValueError(f"{n_links} to files that are not there: {first_ten(walk.dangling)}; repair or remove them")
    tree = walk.tree
    if not tree.classes:
        raise ValueError(f"{folder} has no class folders{_passed(tree)}")
    used = {label for _, label in tree.samples}
    empty = [name for label, name in enumerate(tree.classes) if label not in used]
    if empty:
        raise ValueError(
            f"class folders of {folder} without images: {first_ten(empty)}{_passed(tree)}; remove them, or add images "
            f"({' '.join(IMG_EXTENSIONS)})"
        )
    return tree


def _passed(tree: ImageTree) -> str:
    return f" (passed over: {passed_over_text(tree.passed_over)})" if tree.passed_over else ""


def first_ten(names: list[str]) -> str:
    """The first ten of `names`, for a message."""
    return ", ".join(names[:10]) + (f", and {len(names) - 10} more" if len(names) > 10 else "")


def counted(n: int, noun: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def passed_over_text(counts: Counter[str]) -> str:
    """Entries that were passed over, for a line: ``4 files (.gif 2, .jfif 2), 2 hidden``."""
    kinds = (HIDDEN, LINKED, SPECIAL, LOOSE)
    files = Counter({key: n for key, n in counts.items() if key not in kinds})
    by_extension = ", ".join(f"{key} {n:,}" for key, n in sorted(files.items(), key=lambda item: (-item[1], item[0])))
    parts = [f"{counted(files.total(), 'file')} ({by_extension})"] if files else []
    return ", ".join(parts + [f"{counts[kind]:,} {kind}" for kind in kinds if counts[kind]])


def _extension(name: str) -> str:
    """Extension for the counts; only plain ones are printed."""
    extension = os.path.splitext(name)[1].lower()
    return extension if extension.isascii() and extension[1:].isalnum() and len(extension) <= 8 else "other"


class _Walk:
    def __init__(self):
        self.tree, self.dangling = ImageTree(), []
        self._visited: set[tuple[int, int]] = set()  # device and inode of folders

    def run(self, folder: Path) -> None:
        passed = self.tree.passed_over
        directories, loose = self._list(str(folder))
        passed[LOOSE] += len(loose)
        resolved = folder.resolve()
        above = {_identity(path) for path in (resolved, *resolved.parents)}
        tops: dict[tuple[int, int], os.DirEntry] = {}
        for entry in directories:
            identity = _identity(entry)
            if identity in above:
                passed[LINKED] += 1
                continue
            if identity in tops:
                raise ValueError(f"{tops[identity].path} and {entry.path} are the same folder; remove one of the links")
            tops[identity] = entry
        self._visited = above | tops.keys()
        self.tree.classes += [entry.name for entry in tops.values()]
        self._descend([(label, entry.path) for label, entry in enumerate(tops.values())])
        self.tree.passed_over = +passed  # without zeros

    def _descend(self, real: list[tuple[int, str]]) -> None:
        """Collect the images below `real` (label, folder), links last, so that a link is the repetition."""
        linked: list[tuple[int, str]] = []
        found: list[tuple[int, str, list[str]]] = []
        tops = set(real)
        while real or linked:
            label, folder = item = (real or linked).pop()
            if item not in tops and not self._is_new(folder):
                self.tree.passed_over[LINKED] += 1
                continue
            directories, files = self._list(folder)
            for entry in directories:
                (linked if entry.is_symlink() else real).append((label, entry.path))
            found.append((label, folder, files))
        for label, folder, files in sorted(found):
            for name in files:
                if name.lower().endswith(IMG_EXTENSIONS):
                    self.tree.samples.append((os.path.join(folder, name), label))
                else:
                    self.tree.passed_over[_extension(name)] += 1

    def _is_new(self, folder: str) -> bool:
        identity = _identity(folder)
        new = identity not in self._visited
        self._visited.add(identity)
        return new

    def _list(self, folder: str) -> tuple[list[os.DirEntry], list[str]]:
        """Folders and names of regular files in `folder`, sorted by name."""
        directories, files = [], []
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    self.tree.passed_over[HIDDEN] += 1
                elif entry.is_dir():
                    directories.append(entry)
                elif entry.is_file():
                    files.append(entry.name)
                elif entry.is_symlink() and not os.path.exists(entry.path):
                    self.dangling.append(entry.path)
                else:
                    self.tree.passed_over[SPECIAL] += 1
        return directories, files


def _identity(path: str | Path | os.DirEntry) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
