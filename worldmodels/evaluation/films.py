"""Films for the eye: the real frames above the dreamed ones, one column per seed, and strips with the wrong cells
outlined.

All pictures are WebP data URIs, lossless while they stay under a budget of bytes: a report is one file that asks the
network for nothing.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image, ImageDraw

from worldmodels.evaluation.judge import Film
from worldmodels.types import Array, Modality

GAP = 4  # pixels between frames
BAR = 3  # height of the bar that tells watching from dreaming
GRID_PIXELS = 8  # side of a grid world's place
STRIP_SIDE = 128  # a frame in a still strip is enlarged to at least this
WATCHED, DREAMED, WRONG = (140, 146, 156, 255), (226, 122, 50, 255), (255, 45, 85, 255)
BYTES_OF_A_PICTURE = 220_000
SPEED_MS = {'watch': 180, 'dream': 420, 'end': 1600}


def picture(frames: Array, modality: Modality) -> np.ndarray:
    """(..., H, W, C) of an image or a grid -> (..., H', W', 3) uint8 to look at.

    A grid's first channel chooses the colour, its other channels the brightness.
    """
    frames = np.asarray(frames)
    if modality.kind == 'image':
        return frames if frames.shape[-1] == 3 else np.repeat(frames[..., :1], 3, axis=-1)
    kind, rest = frames[..., 0].astype(np.int64), frames[..., 1:].astype(np.int64)
    angle = kind * 2.399963  # the golden angle: neighbouring kinds get far colours
    hue = np.stack([np.cos(angle + k * 2 * np.pi / 3) for k in range(3)], -1)
    weight = 1 / (1 + (rest * (1 + np.arange(rest.shape[-1]))).sum(-1) % 5)
    colour = np.where((kind > 0)[..., None], 128 + 100 * hue, 40) * (0.4 + 0.6 * weight[..., None])
    side = (frames.ndim - 3, frames.ndim - 2)
    return np.repeat(np.repeat(colour.astype(np.uint8), GRID_PIXELS, side[0]), GRID_PIXELS, side[1])


def animation(film: Film, name: str, modality: Modality, context: int) -> str:
    """A data URI: while watching both rows are real; then the lower row is dreamed.

    It stops where the episode ended.
    """
    real = picture(film.true[name], modality)
    dreamed = picture(film.dreamed[name], modality)
    last = context + int(film.judged_H.sum())
    height, width = real.shape[1:3]
    columns = dreamed.shape[0]
    size = (2 * height + 2 * GAP + BAR, columns * (width + GAP) - GAP)
    pages, durations = [], []
    for t in range(last):
        page = np.zeros((*size, 4), np.uint8)
        for s in range(columns):
            left = s * (width + GAP)
            page[:height, left : left + width] = _opaque(real[t])
            below = real[t] if t < context else dreamed[s, t - context]
            page[height + GAP : 2 * height + GAP, left : left + width] = _opaque(below)
        done, watched = size[1] * (t + 1) // last, size[1] * context // last
        page[-BAR:, : min(done, watched)] = WATCHED
        page[-BAR:, watched : max(done, watched)] = DREAMED
        pages.append(page)
        durations.append(SPEED_MS['watch' if t < context else 'dream'])
    durations[-1] = SPEED_MS['end']
    return data_uri(pages, durations)


def strip(film: Film, name: str, modality: Modality, context: int, horizons: list[int], cell: int) -> np.ndarray:
    """An RGBA picture: a column per horizon, the real frame in the first row, a row per seed below, wrong cells outlined.

    `cell` is the side of a cell in the frame's own pixels (GRID_PIXELS for a grid world).
    """
    real = picture(film.true[name], modality)
    dreamed = picture(film.dreamed[name], modality)
    scale = max(1, -(-STRIP_SIDE // max(real.shape[1:3])))
    height, width = real.shape[1] * scale, real.shape[2] * scale
    rows = 1 + dreamed.shape[0]
    shape = (rows * (height + GAP) - GAP, len(horizons) * (width + GAP) - GAP)
    page = Image.new('RGBA', (shape[1], shape[0]))
    pen = ImageDraw.Draw(page)
    for column, k in enumerate(horizons):
        if not film.judged_H[k - 1]:
            continue
        for row in range(rows):
            frame = real[context + k - 1] if row == 0 else dreamed[row - 1, k - 1]
            at = (column * (width + GAP), row * (height + GAP))
            page.paste(Image.fromarray(_opaque(frame)).resize((width, height), Image.Resampling.NEAREST), at)
            if row:
                for i, j in np.argwhere(film.wrong[name][row - 1, k - 1]):
                    x, y, side = at[0] + j * cell * scale, at[1] + i * cell * scale, cell * scale - 1
                    pen.rectangle((x, y, x + side, y + side), outline=WRONG, width=2)
    return np.asarray(page)


def data_uri(pages: list[np.ndarray], durations: list[int] | None = None) -> str:
    """RGBA pages -> a WebP data URI within BYTES_OF_A_PICTURE where quality allows; looping where there are several."""
    images = [Image.fromarray(page) for page in pages]
    rest = {'save_all': True, 'append_images': images[1:], 'duration': durations, 'loop': 0} if durations else {}
    for options in ({'lossless': True}, *({'quality': q} for q in (90, 70, 45, 20))):
        out = io.BytesIO()
        images[0].save(out, 'WEBP', method=4, **options, **rest)
        if out.tell() <= BYTES_OF_A_PICTURE:
            break
    return 'data:image/webp;base64,' + base64.b64encode(out.getvalue()).decode()


def _opaque(frame: np.ndarray) -> np.ndarray:
    return np.concatenate([frame, np.full((*frame.shape[:2], 1), 255, np.uint8)], -1)
