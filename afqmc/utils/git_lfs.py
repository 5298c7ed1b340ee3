"""Git LFS pointers: the small text files that stand in for large ones until ``git lfs pull`` fetches them."""

from __future__ import annotations

import codecs


def is_lfs_pointer(first_bytes: bytes) -> bool:
    """Whether a file that begins with these bytes is a Git LFS pointer."""
    return first_bytes.removeprefix(codecs.BOM_UTF8).startswith(b"version https://git-lfs.github.com/spec/")
