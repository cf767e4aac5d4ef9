"""Films: GIF files by Pillow, MP4 files by ffmpeg."""

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
"""Frames per second. A GIF's unit of time is 0.01 s, and programs show a frame for at least 0.02 s."""


def write_gif(file: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write frames uint8 [height, width, 3], all of one size."""
    from PIL import Image

    # A palette for each frame by median cut: slower than Pillow's other methods, but white stays white.
    images = (Image.fromarray(frame).quantize(dither=Image.Dither.NONE) for frame in frames)
    first = next(images)
    first.save(file, format="GIF", save_all=True, append_images=images, duration=1000 / fps, loop=0)


def write_mp4(file: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write frames as ``write_gif`` does; height and width are even. BadInput: ffmpeg is missing or fails."""
    program, frames = ffmpeg(), iter(frames)
    first = next(frames)
    size = f"{first.shape[1]}x{first.shape[0]}"
    command = [
        *(program, "-loglevel", "error", "-y"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", f"{fps:g}", "-i", "-"),
        *("-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4", str(file)),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin
        with suppress(BrokenPipeError):  # ffmpeg has failed; its stderr says why
            for frame in chain([first], frames):
                process.stdin.write(frame.data)
        said = process.communicate()[1].decode(errors="replace").strip()
    if process.returncode:
        reason = printable((said.splitlines() or ["it gives no reason"])[-1])
        raise BadInput(f"ffmpeg cannot write the film ({reason}): write a .gif, or install another ffmpeg")


def ffmpeg() -> str:
    """The path of ffmpeg: from the package imageio-ffmpeg, else on PATH. BadInput: there is none."""
    with suppress(ImportError, RuntimeError):
        from imageio_ffmpeg import get_ffmpeg_exe

        program: str = get_ffmpeg_exe()
        return program
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
"""The functions that write a film, by the file's extension."""
