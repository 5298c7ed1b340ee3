"""Git LFS pointers: the small text files that stand where a large file has not been fetched."""

_BEGINNING = b"version https://git-lfs.github.com/spec/"


def is_lfs_pointer(first_bytes: bytes) -> bool:
    """Whether a file that starts with these bytes is a Git LFS pointer; `git lfs pull` fetches the real file."""
    return first_bytes.startswith(_BEGINNING)
