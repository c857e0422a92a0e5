"""glyphs: ten writing systems of ten characters each, in four groups that are known to be related.

Images of 32 x 32 grey pixels, rendered from the fonts that ship with matplotlib. Each image draws
a font that has the character, its slant, rotation, size, place, contrast, polarity and noise.
Characters that look alike in two scripts (A, Alpha, the Cyrillic A) are left out, so that a
classifier over all hundred can be right. The pre-training domain are other scripts and dingbats.

Everything after FreeType's rasteriser is integer arithmetic, and the generator of a character
depends on nothing but its code point: the same bytes on every machine.
"""

import hashlib
import importlib.util
import math
from pathlib import Path

import numpy as np

from benchmarks.common.errors import DataError
from benchmarks.streams.common.base import VisionStream
from benchmarks.streams.common.pictures import write_npz

# sha256 over names, shapes and bytes of the arrays of data.npz, then of pretrain.npz
DIGEST = "53ab37139525f78c35cbbc50edd2b78668406b58066801470f1f8fcde1572d05"

SIZE = 32  # pixels, height and width
N_TRAIN, N_TEST, N_PRETRAIN = 80, 30, 60  # images per class

# task -> (group, its ten characters)
TASKS = {
    "latin-capitals": ("european", "DFGJLNQRSW"),
    "latin-small": ("european", "abdefghmrt"),
    "greek": ("european", "ΔΞΩβδζθλξψ"),
    "cyrillic": ("european", "БДЖИФЦЧЭЮЯ"),
    "armenian": ("caucasian", "բդթժխծճմջֆ"),
    "georgian": ("caucasian", "აბგდელჟრშჯ"),
    "hebrew": ("semitic", "אבגדהלמעצש"),
    "arabic": ("semitic", "جدسصطعفكمي"),
    "arrows": ("symbols", "←↑→↓↔↗↺↩⇒⇕"),
    "mathematics": ("symbols", "∀∃∇∫√∞≈≠⊕∩"),
}
N_CLASSES = sum(len(characters) for _, characters in TASKS.values())
PRETRAIN = {
    "canadian": "ᐅᐊᐯᐱᐳᐸᑌᑐᑕᑫᑭᒉᒋᒍᒣᒥᒧᓀᓂᓄᓇᓓᓕᓗᓚᓭᓯᓱᓴᔐᔑᔓᔕᔦᔨᔪᔭᕃᕆᕈᕋ",
    "tifinagh": "ⴳⴵⴶⴻⴼⴽⵃⵄⵅⵇⵈⵊⵌⵕⵖⵚⵛⵞⵟⵢⵣⵥ",
    "nko": "ߊߋߌߍߎߐߒߔߕߖߗߘߙߚߛߝߞߟߢߣߤߥߦ",
    "lao": "ກຂຄງຈຊຍດຕຖທນບປຜຝພມຢຣລວສຫອຮ",
    "dingbats": "☀☂☃☎☕☘☠☢☣☮☯♔♘♞♣♥♫⚒⚓⚙⚡✂✈✉☺♠♦♬⚐⚔⚖⚛✏✿❄❤",
}

FONTS = [
    f"DejaVu{family}{style}"
    for family, slanted in (("Sans", "Oblique"), ("SansMono", "Oblique"), ("Serif", "Italic"))
    for style in ("", "-Bold", f"-{slanted}", f"-Bold{slanted}")
]
FONTS += ["STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"]
# Computer Modern's files number their signs in TeX's way: only Latin letters are where Unicode
# has them.
COMPUTER_MODERN = ["cmr10", "cmb10", "cmss10", "cmti10", "cmtt10"]

EM = 72  # pixels per em of the outline that is sampled
SAMPLES = 3  # per pixel and axis
ANGLE, SLANT = 15, 15  # largest rotation and shear, degrees
EXTENT = (18, 28)  # larger side of the character, pixels
CONTRAST = (90, 200)  # grey levels between character and ground
NOISE = 16  # largest standard deviation of the noise, grey levels
UNIT = 1 << 14  # one, in the fixed-point numbers of `_draw`


class Glyphs(VisionStream):
    """Ten writing systems."""

    n_tasks = len(TASKS)
    n_items = {"classes": N_CLASSES, "train": N_CLASSES * N_TRAIN, "test": N_CLASSES * N_TEST}

    @property
    def n_classes(self) -> int | None:
        """Tasks that differ in size are splits of all classes, and no writing systems."""
        return N_CLASSES if self.options.first_task_classes else None

    @property
    def unit_names(self) -> list[str]:
        """The characters where these are split, else the writing systems."""
        return [c for _, task in TASKS.values() for c in task] if self.n_classes else list(TASKS)

    def fingerprint(self) -> str:
        """Digest of the content, known beforehand."""
        return DIGEST

    def prepare(self, out: Path) -> dict:
        """Write data.npz (100 classes, ten of each task in turn) and pretrain.npz into `out`."""
        data, pretrain = build()
        found = digest(data, pretrain)
        if found != DIGEST:
            raise DataError(
                f"The glyphs stream needs images with digest {DIGEST[:12]}, the installed "
                f"numpy, pillow and matplotlib give {found[:12]}; install the versions of "
                "requirements.lock."
            )
        n_bytes = write_npz(out / "data.npz", data) + write_npz(out / "pretrain.npz", pretrain)
        return {
            "source": "characters rendered from the fonts that ship with matplotlib",
            "n_bytes": n_bytes,
            "image_size": SIZE,
            "tasks": [
                {"name": name, "group": group, "classes": list(characters)}
                for name, (group, characters) in TASKS.items()
            ],
            "pretrain_classes": list("".join(PRETRAIN.values())),
        }


def build() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The arrays of data.npz and of pretrain.npz; images (N, H, W) uint8, labels (N,) int64."""
    fonts = _Fonts()
    drawn = [_draw(fonts, c, N_TRAIN + N_TEST) for _, task in TASKS.values() for c in task]
    extra = [_draw(fonts, c, N_PRETRAIN) for c in "".join(PRETRAIN.values())]
    data = {
        "train_images": np.concatenate([images[:N_TRAIN] for images in drawn]),
        "train_labels": np.repeat(np.arange(len(drawn)), N_TRAIN),
        "test_images": np.concatenate([images[N_TRAIN:] for images in drawn]),
        "test_labels": np.repeat(np.arange(len(drawn)), N_TEST),
    }
    return data, {
        "images": np.concatenate(extra),
        "labels": np.repeat(np.arange(len(extra)), N_PRETRAIN),
    }


def digest(*groups: dict[str, np.ndarray]) -> str:
    """Hex digest of named arrays."""
    state = hashlib.sha256()
    for arrays in groups:
        for name, array in arrays.items():
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            state.update(f"{name} {array.shape} {array.dtype.name}\n".encode())
            state.update(np.ascontiguousarray(little).tobytes())
    return state.hexdigest()


class _Fonts:
    """The font files that ship with matplotlib, found without importing it."""

    def __init__(self) -> None:
        from fontTools.ttLib import TTFont
        from PIL import ImageFont

        spec = importlib.util.find_spec("matplotlib")
        if spec is None or not spec.submodule_search_locations:
            raise DataError(
                "The glyphs stream needs the fonts of matplotlib, which is not "
                "installed; install requirements.lock."
            )
        folder = Path(spec.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"
        self.fonts = []  # (characters it has, font)
        for name in FONTS + COMPUTER_MODERN:
            file = folder / f"{name}.ttf"
            with TTFont(file, lazy=True) as table:
                has = {chr(code) for code in table.getBestCmap()}
            if name in COMPUTER_MODERN:
                has = {character for character in has if character.isascii()}
            # The basic layout: whether Pillow finds libraqm differs from machine to machine.
            font = ImageFont.truetype(file, EM, layout_engine=ImageFont.Layout.BASIC)
            self.fonts.append((has, font))

    def render(self, character: str) -> np.ndarray:
        """The character in every font that has it, ink centred, (fonts, side, side) in 0..255."""
        masks = []
        for has, font in self.fonts:
            if character in has:
                mask = font.getmask(character, mode="L")
                ink = np.array(mask, dtype=np.int64).reshape(mask.size[::-1])
                rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
                masks.append(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        if not masks:
            raise DataError(
                f"The glyphs stream needs a font with {character!r}, the installed "
                "matplotlib has none; install the versions of requirements.lock."
            )
        side = max(max(mask.shape) for mask in masks) + 2  # an empty border for what lies outside
        sheet = np.zeros((len(masks), side, side), dtype=np.int64)
        for place, mask in zip(sheet, masks, strict=True):
            top, left = ((side - n) // 2 for n in mask.shape)
            place[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
        return sheet


def _draw(fonts: _Fonts, character: str, n: int) -> np.ndarray:
    """`n` images of one character, (n, SIZE, SIZE) uint8."""
    sheet = fonts.render(character)
    side = sheet.shape[-1]
    draw = np.random.Generator(np.random.PCG64(ord(character)))

    def between(low: int, high: int, *shape: int) -> np.ndarray:
        return draw.integers(low, high + 1, size=(n, *shape), dtype=np.int64)

    font = between(0, len(sheet) - 1)
    ink = np.array([max(np.ptp(np.nonzero(mask), axis=1)) + 1 for mask in sheet])[font]
    extent = between(*EXTENT)
    margin = (SIZE - extent) // 2
    shift = between(-UNIT, UNIT, 2) * margin[:, None]  # (n, 2): down, right
    cos, sin = _TURNS[between(0, 2 * ANGLE)].T
    slant = _SLANTS[between(0, 2 * SLANT)]

    # Where each sample of the image falls in the outline: turn back, scale, slant; (n, samples).
    grid = (2 * np.arange(SIZE * SAMPLES) + 1 - SIZE * SAMPLES) * UNIT // (2 * SAMPLES)
    down = (grid[None] - shift[:, :1])[:, :, None]
    right = (grid[None] - shift[:, 1:])[:, None, :]
    cos, sin, slant, ink, extent = (v[:, None, None] for v in (cos, sin, slant, ink, extent))
    y = (cos * down - sin * right) // UNIT * ink // extent
    x = (sin * down + cos * right) // UNIT * ink // extent
    x += slant * y // UNIT
    y, x = (np.clip((v + side * UNIT // 2) // UNIT, 0, side - 1) for v in (y, x))
    coverage = sheet[font[:, None, None], y, x]
    coverage = coverage.reshape(n, SIZE, SAMPLES, SIZE, SAMPLES).sum((2, 4))

    contrast = between(*CONTRAST)
    ground = between(0, 1 << 16) * (255 - contrast) >> 16
    noise = between(0, NOISE)[:, None, None] * between(-UNIT, UNIT, 3, SIZE, SIZE).sum(1) // UNIT
    contrast, ground = contrast[:, None, None], ground[:, None, None]
    grey = ground + contrast * coverage // (255 * SAMPLES**2)
    grey = np.where(between(0, 1)[:, None, None] == 1, grey, 255 - grey)  # dark on light or not
    return np.clip(grey + noise, 0, 255).astype(np.uint8)


def _fixed(values: list) -> np.ndarray:
    return np.array([[round(UNIT * v) for v in row] for row in values], dtype=np.int64)


_TURNS = _fixed(
    [(math.cos(math.radians(a)), math.sin(math.radians(a))) for a in range(-ANGLE, ANGLE + 1)]
)
_SLANTS = _fixed([[math.tan(math.radians(a)) for a in range(-SLANT, SLANT + 1)]])[0]
