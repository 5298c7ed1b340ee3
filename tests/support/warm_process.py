"""Run command lines in forks of a process that has imported torch and the other libraries.

A command line spends seconds of CPU time on imports. Here they happen once:

* ``start`` opens a socket, and writes a script, the client, that is used like ``python``. The first command line
  starts the warm process, which does the imports.
* The client sends its command line (``-m MODULE ...`` or ``-c CODE ...``), working directory, environment and open
  files to the socket.
* The warm process forks a child, which runs the command line with all of these, in a session of its own.
* The client passes signals on and exits with the same code. If it ends first, the child's process group is killed.

A child whose environment differs in a variable that libraries may read during import becomes a new interpreter instead.
"""

import contextlib
import json
import os
import runpy
import select
import signal
import socket
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
NO_THREADS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}  # a fork would lose them
THREADS = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", *NO_THREADS)  # read during import; counts are set again in each child
READ_AT_RUN_TIME = (
    "ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_CPU", "AFQMC_", "HF_TOKEN", "HYDRA_FULL_ERROR", "NETRC", "PYTEST_",
    "WANDB_", "PATH", "PS1", "PWD", "OLDPWD", "SHLVL", "_", "COLUMNS", "LINES",
    "GROUP_", "LOCAL_", "MASTER_", "RANK", "ROLE_", "TORCHELASTIC_", "TORCH_NCCL_", "WORLD_SIZE",  # set by torchrun
    "KMP_", "TORCHINDUCTOR_",  # set by libraries
)  # fmt: skip
OTHERS = (
    "hydra_plugins.afqmc_sweeps.grid_sweeper", "hydra_plugins.afqmc_sweeps.process_launcher", "sklearn.metrics",
    "transformers.optimization",
    "threadpoolctl", "transformers.models.bert.modeling_bert", "wandb",
)  # fmt: skip


def start(directory):
    """Write the client into a directory, and return its path."""
    import shlex
    import subprocess
    import threading
    from pathlib import Path

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path := f"{directory}/warm")
    listener.listen(100)
    script = Path(directory, "python")
    line = shlex.join([sys.executable, *"-I -S -X utf8".split(), __file__, path])  # noqa: SIM905
    script.write_text(f'#!/bin/sh\nexec {line} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONPATH": str(Path(__file__).parents[2])}

    def start_at_first_use():
        select.select([listener], [], [])
        words = [sys.executable, __file__, "--serve", str(listener.fileno()), str(script)]
        options = {"stdin": subprocess.PIPE, "pass_fds": [listener.fileno()], "start_new_session": True}
        process = subprocess.Popen(words, env=environment, **options)
        listener.close()
        process.wait()  # it ends when its standard input does, with this process

    threading.Thread(target=start_at_first_use, daemon=True).start()
    return str(script)


def run_client(path, words):
    """Have the warm process run a command line, and exit with its code or signal."""
    files = [number for number in map(int, os.listdir("/proc/self/fd")) if is_open(number)]
    server = socket.socket(socket.AF_UNIX)
    server.connect(path)
    request = {"words": words, "directory": os.getcwd(), "environment": dict(os.environ), "files": files}
    socket.send_fds(server, [json.dumps(request).encode() + b"\n"], files)
    for number in files:
        os.close(number)

    def forward(number, _):
        with contextlib.suppress(OSError):  # the child has ended
            server.send(bytes([number]))

    for number in SIGNALS:
        signal.signal(number, forward)
    code = int(server.recv(16) or 1)
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL cannot have a handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def is_open(number):
    """Return whether a number is that of an open file."""
    with contextlib.suppress(OSError):
        os.fstat(number)
        return True
    return False


def preload(directory):
    """Import what commands import, with the thread settings of a command, and temporary files in a directory."""
    import gc
    import pkgutil
    import tempfile
    import weakref
    from importlib import import_module

    import afqmc
    from afqmc.utils.process import configure_threads

    tempfile.tempdir = directory
    os.environ.update(NO_THREADS)
    configure_threads()
    packages = pkgutil.walk_packages(afqmc.__path__, "afqmc.")
    inner = [module.name for module in packages if module.name.count(".") > 1]  # the others are the commands
    for name in (*inner, *OTHERS):
        import_module(name)
    afqmc.data.sample.sample_files()  # generating the pairs takes most of a second
    assert len(os.listdir("/proc/self/task")) == 1
    for finalizer in weakref.finalize._registry:
        finalizer.atexit = False  # the first child to end would delete the temporary directory of wandb
    tempfile.tempdir = None
    gc.freeze()  # a garbage collection in a child would copy all of it


def serve(listener):
    """Fork a process per request. Returns in each child: the request, and the client's files."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    while True:
        if 0 in select.select([listener, 0], [], [])[0]:
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            return fork_and_watch(connection)
        connection.close()


def fork_and_watch(connection):
    """Fork the child, pass the client's signals on to it, and send its exit code to the client."""
    text, files, *_ = socket.recv_fds(connection, 1 << 20, 200)
    while not text.endswith(b"\n"):
        text += connection.recv(1 << 20)
    child = os.fork()
    if child == 0:
        os.setsid()
        connection.close()
        return json.loads(text), files
    for file in files:
        os.close(file)
    ended = os.pidfd_open(child)
    while ended not in select.select([connection, ended], [], [])[0]:
        if number := connection.recv(1):
            os.kill(child, number[0])
            continue
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        break
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(OSError):  # the client has ended
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def become(request, files, client):
    """Give this process what a new interpreter has when its command line starts."""
    high = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 1000) for file in files]  # not among the numbers below
    for file in files:
        os.close(file)
    for number, file in zip(request["files"], high, strict=True):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["directory"])
    environment, words = request["environment"], request["words"]
    if read_during_import(environment) != read_during_import(os.environ):
        os.execve(sys.executable, [sys.executable, *words], environment)
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_executable(client)
    sys.orig_argv[:] = [sys.executable, *words]
    sys.argv[:] = words[next(number for number, word in enumerate(words) if word in ("-c", "-m")) :]
    sys.path[0] = os.getcwd()
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())
    sys.modules["numpy"].random.seed()
    media = sys.modules["wandb.sdk.data_types._private"].MEDIA_TMP  # a command that used wandb deletes it at its end
    media.name = sys.modules["tempfile"].mkdtemp(dir=os.path.dirname(media.name))
    set_threads()


def read_during_import(environment):
    """Return the variables that libraries may read while they are imported."""
    return {name: text for name, text in environment.items() if not name.startswith((*THREADS, *READ_AT_RUN_TIME))}


def set_threads():
    """Set thread counts when a command configures them: the libraries are loaded already, and do not read them."""
    from threadpoolctl import threadpool_limits

    from afqmc.utils import process

    def limit():
        threadpool_limits(int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))))

    def configure_threads(*arguments, **options):
        configure(*arguments, **options)
        limit()

    configure, process.configure_threads = process.configure_threads, configure_threads
    limit()


if __name__ == "__main__":
    if sys.argv[1] != "--serve":
        run_client(sys.argv[1], sys.argv[2:])
    import atexit
    import fcntl
    import multiprocessing
    import threading
    import types

    _, _, number, client = sys.argv
    preload(os.path.dirname(client))
    become(*serve(socket.socket(fileno=int(number))), client)
    option, argument, code = sys.argv[0], sys.argv.pop(1), 0
    try:
        if option == "-m":
            runpy.run_module(argument, run_name="__main__", alter_sys=True)
        else:
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(argument, main.__dict__)
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        code = ended.code or 0
    # what an interpreter does at its end, but for the deletion of all objects, which takes a third of a second
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError):  # it is closed
            stream.flush()
    os._exit(code)
