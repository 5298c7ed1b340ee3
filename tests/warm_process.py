"""Run command lines in forks of a process that has imported torch and the other libraries.

A command line spends seconds of CPU time on imports. Here they happen once:

* ``start`` opens a socket. The first command line that arrives there starts the warm process, which does the imports.
* ``python warm_process.py SOCKET MODULE ARGUMENTS``, the client, stands for ``python -m MODULE ARGUMENTS``. It sends
  its command line, working directory, environment and standard streams to the socket.
* The warm process forks a child, which runs the module with all of these, in a session of its own.
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
    "AFQMC_", "HYDRA_FULL_ERROR", "PYTEST_", "WANDB_", "PATH", "PWD", "OLDPWD", "SHLVL", "_", "COLUMNS", "LINES",
    "KMP_", "TORCHINDUCTOR_",  # set by libraries
)  # fmt: skip
OTHERS = (  # without wandb, which makes a temporary directory when imported: the first child to end would delete it
    "hydra_plugins.afqmc_sweeps.grid_sweeper", "hydra_plugins.afqmc_sweeps.process_launcher", "sklearn.metrics",
    "threadpoolctl", "transformers.models.bert.modeling_bert",
)  # fmt: skip


def start(directory):
    """Open the socket of a warm process in a directory, and return its path."""
    import subprocess
    import threading

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path := f"{directory}/warm")
    listener.listen(100)
    environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONPATH": os.path.dirname(os.path.dirname(__file__))}

    def start_at_first_use():
        select.select([listener], [], [])
        words = [sys.executable, __file__, "--serve", str(listener.fileno())]
        options = {"stdin": subprocess.PIPE, "pass_fds": [listener.fileno()], "start_new_session": True}
        process = subprocess.Popen(words, env=environment, **options)
        listener.close()
        process.wait()  # it ends when its standard input does, with this process

    threading.Thread(target=start_at_first_use, daemon=True).start()
    return path


def run_client(path, words):
    """Have the warm process run a command line, and exit with its code or signal."""
    server = socket.socket(socket.AF_UNIX)
    server.connect(path)
    request = {"words": words, "directory": os.getcwd(), "environment": dict(os.environ)}
    socket.send_fds(server, [json.dumps(request).encode() + b"\n"], [0, 1, 2])

    def forward(number, _):
        with contextlib.suppress(OSError):  # the child has ended
            server.send(bytes([number]))

    for number in SIGNALS:
        signal.signal(number, forward)
    code = int(server.recv(16) or sys.exit("the warm process has ended"))
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL cannot have a handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def preload():
    """Import what commands import, with the thread settings of a command."""
    import gc
    import pkgutil
    from importlib import import_module

    import afqmc
    from afqmc.utils.process import configure_threads

    os.environ.update(NO_THREADS)
    configure_threads()
    packages = pkgutil.walk_packages(afqmc.__path__, "afqmc.")
    inner = [module.name for module in packages if module.name.count(".") > 1]  # the others are the commands
    for name in (*inner, *OTHERS):
        import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1
    gc.freeze()  # a garbage collection in a child would copy all of it


def serve(listener):
    """Fork a process per request. Returns in each child: the request, and the client's streams."""
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
    text, streams, *_ = socket.recv_fds(connection, 1 << 20, 3)
    while not text.endswith(b"\n"):
        text += connection.recv(1 << 20)
    child = os.fork()
    if child == 0:
        os.setsid()
        connection.close()
        return json.loads(text), streams
    for stream in streams:
        os.close(stream)
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


def become(request, streams):
    """Give this process what ``python -m MODULE ARGUMENTS`` has when MODULE starts; return MODULE."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["directory"])
    command, environment = [sys.executable, "-m", *request["words"]], request["environment"]
    if read_during_import(environment) != read_during_import(os.environ):
        os.execve(sys.executable, command, environment)
    os.environ.clear()
    os.environ.update(environment)
    sys.orig_argv[:] = command
    sys.argv[:] = command[2:]
    sys.path[0] = os.getcwd()
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())
    sys.modules["numpy"].random.seed()
    set_threads()
    return sys.argv[0]


def read_during_import(environment):
    """Return the variables that libraries may read while they are imported."""
    return {name: text for name, text in environment.items() if not name.startswith((*THREADS, *READ_AT_RUN_TIME))}


def set_threads():
    """Set thread counts when a command configures them: the libraries are loaded already, and do not read them."""
    from threadpoolctl import threadpool_limits

    from afqmc.utils import process

    def limit():
        threadpool_limits(int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))))

    def configure_threads(jobs_at_once=1):
        configure(jobs_at_once)
        limit()

    configure, process.configure_threads = process.configure_threads, configure_threads
    limit()


if __name__ == "__main__":
    if sys.argv[1] != "--serve":
        run_client(sys.argv[1], sys.argv[2:])
    preload()
    module = become(*serve(socket.socket(fileno=int(sys.argv[2]))))
    runpy.run_module(
        module, run_name="__main__", alter_sys=True
    )  # ends as any interpreter does, its exit code included
