"""Make the pictures of the README from real runs: the quickstart in a terminal, and the page of a sweep.

python docs/make_pictures.py [DIR]        DIR keeps the runs, so that a second call only draws; default outputs/pictures

It needs Chromium and a font with Chinese characters (Debian: apt-get install chromium fonts-wqy-microhei). The sweep
has nine runs of half a minute each on 2 cores.
"""

from __future__ import annotations

import html
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
PICTURES = Path(__file__).parent / "pictures"
QUICKSTART = ("experiment=quickstart", "tracker=none")
SWEEP = ("-m", "experiment=quickstart", "lr=5e-5,2e-4,5e-4", "seed=1,2,3", "sweep.name=lr", "tracker=none")
_COLUMNS = 112
_SCALE = 2  # pixels per CSS pixel, for sharp text
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--virtual-time-budget=5000",
)  # fmt: skip
_COLORS = 64  # of the palette of a PNG: text needs few


def command(name: str, *arguments: str) -> list[str]:
    """Return ``python -m afqmc.NAME ARGUMENTS``."""
    return [sys.executable, "-m", f"afqmc.{name}", *arguments]


def environment() -> dict[str, str]:
    """Return the environment of the commands: this checkout, and a terminal with colours."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}


def on_terminal(line: list[str], cwd: Path) -> str:
    """Run a command on a terminal of its own; return everything that it wrote."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, _COLUMNS))
    process = subprocess.Popen(line, cwd=cwd, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not part:
            break
        written += part
    os.close(ours)
    if process.wait():
        sys.exit(written.decode("utf-8", "replace"))
    return written.decode("utf-8")


def shown_lines(written: str) -> str:
    """Return the lines of the output. Of a progress bar, only the state before each evaluation remains."""
    lines = []
    for line in re.sub(r"\x1b\[[0-9;?]*[A-HJKSTfhl]", "", written).replace("\r\n", "\n").split("\n"):
        states = [state for state in line.split("\r") if state.strip()]
        if states and not re.match(r"dev: +\d+%|train: +100%", states[-1]):
            lines.append(states[-1])
    return "\n".join(lines)


def terminal_page(prompt: str, written: str) -> str:
    """Return an HTML page that shows a command and its output."""
    console = Console(record=True, width=_COLUMNS, file=open(os.devnull, "w"), color_system="truecolor")  # noqa: SIM115
    console.print(Text.from_ansi(shown_lines(written).rstrip()))
    body = console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")
    style = (
        "body{margin:0;background:#1e1e1e;color:#ddd}"
        "pre{margin:0;padding:0 16px 14px;font:13px/1.17 'DejaVu Sans Mono',monospace}"
        "p{margin:0;padding:14px 16px 2px;font:bold 13px 'DejaVu Sans Mono',monospace;color:#7ec699}"
    )
    return f"<!doctype html><meta charset=utf-8><style>{style}</style><p>$ {html.escape(prompt)}</p>{body}"


def draw(page: str, picture: Path, width: int, height: int, language: str = "en") -> None:
    """Draw a page with Chromium into a PNG with few colours; remove the empty rows at its end."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or sys.exit("Chromium is not installed")
    with tempfile.TemporaryDirectory() as home:
        shot = Path(home, "shot.png")
        size = (f"--window-size={width},{height}", f"--force-device-scale-factor={_SCALE}")
        own = (f"--user-data-dir={home}/profile", f"--screenshot={shot}", f"--accept-lang={language}")
        subprocess.run([chromium, *_FLAGS, *size, *own, page], check=True, capture_output=True, timeout=300)
        image = Image.open(shot).convert("RGB")
    background = Image.new("RGB", image.size, image.getpixel((0, image.height - 1)))
    bottom = _last_row(image, background)
    image = image.crop((0, 0, image.width, min(image.height, bottom + 12 * _SCALE)))
    image.quantize(_COLORS).save(picture, optimize=True)
    print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB, {image.width} x {image.height}")


def _last_row(image: Image.Image, background: Image.Image) -> int:
    from PIL import ImageChops

    box = ImageChops.difference(image, background).getbbox()
    return box[3] if box else image.height


def main() -> None:
    """Run the quickstart and the sweep, unless DIR has them, and draw three pictures."""
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "outputs/pictures").resolve()
    directory.mkdir(parents=True, exist_ok=True)
    PICTURES.mkdir(exist_ok=True)
    written = directory / "quickstart.txt"
    if not written.exists():
        written.write_bytes(on_terminal(command("run", *QUICKSTART), directory).encode())
    subprocess.run(command("run", *SWEEP), cwd=directory, env=environment(), check=True)
    page = directory / "terminal.html"
    prompt = "python -m afqmc.run experiment=quickstart tracker=none"
    page.write_text(terminal_page(prompt, written.read_bytes().decode().replace(f"{directory}/", "")), encoding="utf-8")
    draw(page.as_uri(), PICTURES / "terminal.png", 900, 800)
    report = directory / "report.html"
    line = command("compare", "outputs/sweeps/lr", "--html", str(report))
    subprocess.run(line, cwd=directory, env=environment(), check=True)
    for language, name in (("en", "comparison.png"), ("zh-CN", "comparison.zh.png")):
        draw(report.as_uri(), PICTURES / name, 1000, 835, language)


if __name__ == "__main__":
    main()
