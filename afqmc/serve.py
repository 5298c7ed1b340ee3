"""``python -m afqmc.serve RUN_DIR``: an HTTP service that predicts pairs, with a page to try it."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

from afqmc.cli import DONE, reject_several_processes, run_command
from afqmc.utils.command_help import CommandParser, add_loading_options
from afqmc.utils.errors import InputError
from afqmc.utils.language import translate
from afqmc.utils.process import configure_threads, limit_kernel_caches

_TOKEN_VARIABLE = "AFQMC_SERVE_TOKEN"  # noqa: S105 the name of a variable
_MIN_TOKEN = 16  # characters
_PACKAGES = ("fastapi", "uvicorn", "prometheus_client")
_DETAILS = """\
POST /predict takes pairs of sentences as JSON, and answers with the probability and the prediction of each. / is a page
to try it, /docs describes the interface, /metrics is for Prometheus, /health and /ready are for probes. Pairs of
concurrent requests are predicted together. SIGTERM and Ctrl-C answer what has arrived, then stop. The log on standard
error is one JSON object per line."""


def main() -> int:
    """Load the best weights of a run, and serve them until a signal."""
    reject_several_processes("serve")
    arguments = _parse_arguments()
    token = read_token(arguments.token_file)
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise InputError(f"serve: needs {', '.join(missing)}: pip install 'afqmc[serve]'")
    _check_arguments(arguments, token)

    configure_threads(arguments.workers)
    limit_kernel_caches()
    from afqmc.comparison.wrong_examples import wrong_dev_pairs
    from afqmc.inference.predictor import Predictor
    from afqmc.inference.serving.server import serve_on
    from afqmc.inference.serving.settings import ServeSettings

    predictor = Predictor.load(arguments.run_dir, arguments.device, arguments.trust, engine=arguments.engine)
    examples, examples_missing = wrong_dev_pairs(arguments.run_dir)
    settings = ServeSettings(
        run_dir=arguments.run_dir,
        device=arguments.device,
        trust=arguments.trust,
        engine=predictor.engine,
        max_batch=arguments.max_batch,
        max_delay_s=arguments.max_delay_ms / 1000,
        queue=arguments.queue,
        timeout_s=arguments.timeout,
        token=token,
        log_texts=arguments.log_texts,
        examples=examples,
        examples_missing=examples_missing,
    )
    # with several workers, this process has only checked the run and chosen the engine; each worker loads its own
    served = predictor if arguments.workers == 1 else None
    del predictor
    with bind(arguments.host, arguments.port) as bound:
        host, port = bound.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        print(translate(f"{arguments.run_dir}: {address} (the page), {address}/docs (the interface)"), flush=True)
        serve_on(bound, settings, served, arguments.workers)
    return DONE


def _parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser("serve", details=_DETAILS)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="a run directory")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; any but this machine's needs a token"
    )
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="port to listen on; 0 chooses a free one")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes; each loads the model")
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="file with the token that clients must send; or set AFQMC_SERVE_TOKEN",
    )
    parser.add_argument("--max-batch", type=int, default=64, metavar="N", help="pairs that are predicted together")
    parser.add_argument(
        "--max-delay-ms", type=float, default=5.0, metavar="MS", help="time that a pair waits for its batch to fill"
    )
    parser.add_argument("--queue", type=int, default=1024, metavar="N", help="pairs that may wait, per worker")
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="S", help="seconds in which a request is answered"
    )
    parser.add_argument("--log-texts", action="store_true", help="write the sentences to the log")
    add_loading_options(parser)
    return parser.parse_args()


def read_token(path: Path | None) -> str | None:
    """Return the token in a file, or that of the variable; None if there is none.

    Raises:
        InputError: if the file cannot be read, or the token is too short or not printable ASCII.
    """
    if path is None:
        name, token = _TOKEN_VARIABLE, os.environ.get(_TOKEN_VARIABLE)
    else:
        name = f"--token-file {path}"
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{name}: cannot be read") from error
    if token is None:
        return None
    if len(token) < _MIN_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise InputError(f"{name}: the token must have at least {_MIN_TOKEN} printable ASCII characters, no spaces")
    return token


def _check_arguments(arguments: argparse.Namespace, token: str | None) -> None:
    """Check ranges, and that a service that other machines can reach has a token.

    Raises:
        InputError: naming the option.
    """
    from afqmc.inference.serving.settings import is_loopback

    for option, value, low, high in (
        ("--port", arguments.port, 0, 65535),
        ("--workers", arguments.workers, 1, 256),
        ("--max-batch", arguments.max_batch, 1, 512),
        ("--max-delay-ms", arguments.max_delay_ms, 0, 10_000),
        ("--queue", arguments.queue, 1, 1_000_000),
        ("--timeout", arguments.timeout, 0.1, 3600),
    ):
        if not low <= value <= high:
            raise InputError(f"{option} {value}: must be between {low} and {high}")
    if token is None and not is_loopback(arguments.host):
        raise InputError(
            f"--host {arguments.host}: other machines can reach it, so a token is needed: --token-file FILE, or "
            f"{_TOKEN_VARIABLE}"
        )


def bind(host: str, port: int) -> socket.socket:
    """Bind a socket; connections are refused until the service listens.

    Args:
        host: Name or address.
        port: 0 chooses a free one.

    Raises:
        InputError: if the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: cannot be used ({error.strerror})") from error
    bound.set_inheritable(True)
    return bound


if __name__ == "__main__":
    sys.exit(run_command(main))
