#!/bin/sh
# Create .venv and install afqmc in it, with the tested versions (constraints.txt).
#   sh scripts/setup.sh [EXTRAS]     extras of pyproject.toml, separated by commas; "test" if omitted
# Uses uv if it is installed, otherwise pip. Does nothing if nothing has changed since the last time. Variables:
#   PYTHON   the Python to use; if unset, the first suitable one of those below
#   TORCH    cpu: PyTorch's CPU build. cuda: its build for CUDA 13.0. default: the build of your package index, which
#            for Linux is usually the CUDA build. If unset: cpu on Linux without an NVIDIA GPU, elsewhere default
set -eu
cd -- "$(dirname -- "$0")/.."
extras=${1:-test}
venv_python=.venv/bin/python
stamp=.venv/.installed-$extras
unfinished=.venv/.unfinished # holds the process that makes .venv

say() { printf '%s\n' "setup: $*"; }
fail() { say "$@" >&2; exit 1; }
version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
suitable() { case "$(version "$1")" in 3.11 | 3.12 | 3.13 | 3.14) ;; *) return 1 ;; esac }
has() { command -v "$1" >/dev/null 2>&1; }
key() { { cat pyproject.toml constraints.txt; version "$venv_python"; pwd; echo "${TORCH:-}"; } | cksum; }
has_gpu() { [ -e /dev/nvidia0 ] || nvidia-smi -L >/dev/null 2>&1; }
install() {
  if has uv; then uv pip install --python "$venv_python" "$@"
  else "$venv_python" -m pip install --disable-pip-version-check --retries 2 "$@"; fi
}

case "${TORCH:-}" in '' | cpu | cuda | default) ;; *) fail "TORCH=$TORCH: must be cpu, cuda or default" ;; esac

if [ -f "$unfinished" ]; then
  process=$(cat "$unfinished")
  if kill -0 "$process" 2>/dev/null; then fail "process $process is setting up .venv; wait for it, or end it"; fi
  say "removing .venv, which an interrupted set-up left unfinished"
  rm -rf .venv
elif [ -e .venv ] && ! version "$venv_python" >/dev/null; then
  say "removing .venv, whose Python no longer works"
  rm -rf .venv
fi

if [ ! -e .venv ]; then
  if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"
  else set -- python3 python3.14 python3.13 python3.12 python3.11 python; fi
  python=
  for candidate; do
    if suitable "$candidate"; then python=$candidate; break; fi
  done
  if [ -z "$python" ] && [ -z "${PYTHON:-}" ] && has uv; then python=3.13; fi # uv finds or downloads it
  [ -n "$python" ] || fail "Python 3.11, 3.12, 3.13 or 3.14 is needed (tried: $*). \
Install one, or name it: PYTHON=/path/to/python3.13"
  say "creating .venv with $python"
  mkdir .venv
  echo $$ >"$unfinished"
  if has uv; then uv venv --quiet --allow-existing --python "$python" .venv; else "$python" -m venv .venv; fi
fi
suitable "$venv_python" || fail ".venv has Python $(version "$venv_python"), and 3.11 to 3.14 is needed: remove .venv"
if [ -n "${PYTHON:-}" ] && [ "$(version "$PYTHON")" != "$(version "$venv_python")" ]; then
  fail ".venv has Python $(version "$venv_python"), and PYTHON=$PYTHON is another version: remove .venv to change it"
fi

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(key)" ]; then
  say ".venv is up to date (Python $(version "$venv_python"), extras: $extras)"
  exit
fi
rm -f "$stamp"
torch=$(sed -n 's/^torch==//p' constraints.txt)
choice=${TORCH:-default}
if [ "$(uname -s)" != Linux ]; then
  choice=default # the index has one build for each of the other systems
elif [ -z "${TORCH:-}" ] && ! has_gpu; then
  choice=cpu
fi
case $choice in
  cpu)
    say "installing the CPU build of PyTorch $torch; TORCH=cuda selects the CUDA build"
    if ! install --no-deps --index-url https://download.pytorch.org/whl/cpu "torch==$torch+cpu"; then
      say "The CPU build could not be downloaded from download.pytorch.org. Continuing with the build of your package"
      say "index, which is usually the CUDA build: gigabytes to download. Ctrl-C stops it."
    fi
    ;;
  cuda)
    say "installing the CUDA build of PyTorch $torch"
    install --no-deps --index-url https://download.pytorch.org/whl/cu130 "torch==$torch+cu130"
    ;;
  default)
    if [ -n "${TORCH:-}" ]; then install --no-deps --force-reinstall "torch==$torch"; fi # perhaps it has another build
    ;;
esac
say "installing afqmc[$extras] with the versions of constraints.txt; this takes a few minutes the first time"
install --quiet -e ".[$extras]" -c constraints.txt
rm -f "$unfinished"
key >"$stamp"
say "done: .venv (Python $(version "$venv_python"), extras: $extras)"
