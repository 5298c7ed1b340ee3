"""Recognize Git LFS pointers, the small text files that ``git lfs pull`` replaces by the large ones."""

from __future__ import annotations

import codecs


def is_lfs_pointer(first_bytes: bytes) -> bool:
    """Return whether a file that begins with these bytes is a Git LFS pointer."""
    return first_bytes.removeprefix(codecs.BOM_UTF8).startswith(b"version https://git-lfs.github.com/spec/")
