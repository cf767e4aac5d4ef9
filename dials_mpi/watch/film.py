"""Pictures one after another, as a file: GIF by Pillow, MP4 by ffmpeg."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path

import numpy as np

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable

LEAST_FPS, MOST_FPS = 0.1, 50
"""A GIF counts in hundredths of a second, and what shows it takes two of them at least."""


def write_gif(file: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Frames uint8 [height, width, 3], all of one size."""
    from PIL import Image

    # A palette for each frame by median cut: slower than Pillow's other ways, but white stays white.
    images = (Image.fromarray(frame).quantize(dither=Image.Dither.NONE) for frame in frames)
    first = next(images)
    first.save(file, format="GIF", save_all=True, append_images=images, duration=1000 / fps, loop=0)


def write_mp4(file: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """As write_gif, height and width even. BadInput: ffmpeg is missing, or fails."""
    program, frames = ffmpeg(), iter(frames)
    first = next(frames)
    size = f"{first.shape[1]}x{first.shape[0]}"
    command = [
        *(program, "-loglevel", "error", "-y"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", f"{fps:g}", "-i", "-"),
        *("-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4", str(file)),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        with suppress(BrokenPipeError):  # it has ended, and says why
            for frame in chain([first], frames):
                process.stdin.write(frame.data)
        said = process.communicate()[1].decode(errors="replace").strip()
    if process.returncode:
        reason = printable((said.splitlines() or ["it does not say why"])[-1])
        raise BadInput(f"ffmpeg cannot write the film ({reason}): write a .gif, or install another ffmpeg")


def ffmpeg() -> str:
    """The program: of the package imageio-ffmpeg, else on the path. BadInput: there is none."""
    with suppress(ImportError, RuntimeError):
        from imageio_ffmpeg import get_ffmpeg_exe

        return get_ffmpeg_exe()
    found = shutil.which("ffmpeg")
    if not found:
        raise BadInput(
            "ffmpeg, which writes mp4 films, is not found: pip install 'dials_mpi[film]', or write a .gif"
        )
    return found


FILMS: dict[str, Callable[[Path, Iterable[np.ndarray], float], None]] = {
    ".gif": write_gif,
    ".mp4": write_mp4,
}
"""By the end of the file's name."""
