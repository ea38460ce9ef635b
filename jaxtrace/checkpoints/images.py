"""Prepares images with the checkpoint's image processor, and computes which tokens attend to which tiles."""

from __future__ import annotations

import functools
import math
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageOps

from jaxtrace.documents import MAX_JSON, decode_json
from jaxtrace.errors import CheckpointError, PromptError, first_line
from jaxtrace.files import open_regular
from jaxtrace.models.images import Images
from jaxtrace.models.vision_config import VisionConfig

if TYPE_CHECKING:
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

# Limits of an image file, far above what vision models use: Llama 3.2 Vision sees 1.25 million pixels.
MOST_PIXELS = 2**26  # 8192 × 8192, 192 MiB as RGB
MOST_BYTES = 2**29
SMALLER = f"give one of at most {MOST_PIXELS:,} pixels and {MOST_BYTES:,} bytes"
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")  # none runs a program

FILES = ("preprocessor_config.json", "processor_config.json")

ImageSource = Image.Image | Path | str


class ImageProcessor:
    """Hugging Face's image processor of Llama 3.2 Vision: it resizes, pads, normalises and cuts images into tiles."""

    def __init__(self, processor: MllamaImageProcessorPil) -> None:
        self.hf = processor

    @classmethod
    def load(cls, directory: Path, vision: VisionConfig) -> ImageProcessor | None:
        """Load the image processor of a checkpoint directory; return None for a directory without one.

        Raises:
          CheckpointError: the processor cannot be read, or its tiles do not fit the model.
        """
        if not any((directory / name).exists() for name in FILES):
            return None
        try:
            for name in FILES:
                if (directory / name).exists():
                    with open_regular(directory / name) as file:
                        decode_json(file.read(MAX_JSON), finite=False)
            settings, _ = _hugging_face().get_image_processor_dict(directory, local_files_only=True)
            if not isinstance(settings, dict):
                raise TypeError("its config is no JSON object")
            kind = settings.get("image_processor_type", "Mllama")
            if not str(kind).startswith("Mllama"):
                raise ValueError(f"image_processor_type={kind!r}, which is not Mllama's")
            processor = _hugging_face()(**settings)
            _check_steps(processor)
        except Exception as error:  # transformers raises whatever its parsers raise
            raise CheckpointError(
                f"{directory}: the image processor cannot be read ({first_line(error)}); download its files again"
            ) from None
        tiles, pixels = processor.max_image_tiles, processor.size["height"]
        if (tiles, pixels) != (vision.max_tiles, vision.image_size):
            raise CheckpointError(
                f"{directory}: the image processor makes {tiles} tiles of {pixels} pixels, and the model takes "
                f"{vision.max_tiles} of {vision.image_size}; download the checkpoint again"
            )
        return cls(processor)

    @classmethod
    def of(cls, vision: VisionConfig) -> ImageProcessor:
        """Return transformers' default processor, for a checkpoint without one."""
        size = {"height": vision.image_size, "width": vision.image_size}
        return cls(_hugging_face()(size=size, max_image_tiles=vision.max_tiles))

    def __call__(self, prompts: Sequence[Sequence[ImageSource]]) -> tuple[Images, list[list[int]]]:
        """Return the images of a batch of prompts, and the number of tiles of each image.

        Args:
          prompts: images of each prompt, Pillow images or files; at least one prompt has any.

        Raises:
          PromptError: a file is not a readable image, or is too large.
        """
        rows = [[_upright_rgb(source) for source in prompt] for prompt in prompts]
        features = cast(Any, self.hf)(images=rows, return_tensors="np")
        ratio, mask = features["aspect_ratio_ids"].astype(np.int32), features["aspect_ratio_mask"].astype(bool)
        return Images(features["pixel_values"], ratio, mask), features["num_tiles"]


def tile_visibility(
    token_ids: Sequence[int], num_tiles: Sequence[int], max_images: int, max_tiles: int, image_token: int
) -> Bool[np.ndarray, "T I*M"]:
    """Return which tiles each token of a prompt attends to; the tiles of image i start at i · max_tiles.

    A token attends to the last image at or before its position, and to all images of an unbroken run of images.
    Generated tokens attend to the tiles of the prompt's last token.

    Args:
      token_ids: ids of the prompt.
      num_tiles: number of tiles of each image, in order.
      max_images: maximum number of images per prompt in the batch, I.
      max_tiles: maximum number of tiles per image, M.
      image_token: id of the image token; the prompt has one per image.
    """
    positions = [position for position, token in enumerate(token_ids) if token == image_token]
    visible = np.zeros((len(token_ids), max_images, max_tiles), bool)
    end = following = len(token_ids)
    for image in reversed(range(len(positions))):
        if positions[image] + 1 < following:
            end = following
        following = positions[image]
        visible[following:end, image, : num_tiles[image]] = True
    return visible.reshape(len(token_ids), -1)


def _hugging_face() -> type[MllamaImageProcessorPil]:
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil  # takes seconds

    return MllamaImageProcessorPil


def _check_steps(processor: MllamaImageProcessorPil) -> None:
    """Raise ValueError, or the processor's error, if the processor cannot turn an image into numbers."""
    for name in ("image_mean", "image_std"):
        values = getattr(processor, name)
        if not isinstance(values, list | tuple) or len(values) != 3 or not all(map(_is_finite, values)):
            raise ValueError(f"{name}={values!r}, which must be 3 finite numbers")
    if min(cast(Any, processor).image_std) <= 0:
        raise ValueError(f"image_std={processor.image_std!r}, which must be above 0")
    if not _is_finite(processor.rescale_factor):
        raise ValueError(f"rescale_factor={processor.rescale_factor!r}, which must be a finite number")
    cast(Any, processor)(images=[[Image.new("RGB", (1, 1))]])


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_image(source: ImageSource) -> None:
    """Check that a source is an image, without decoding it; a truncated file may pass and fail later.

    Args:
      source: Pillow image or file.

    Raises:
      PromptError: the source is neither, is empty, too large, or is not a readable image.
    """
    with _opened(source) as image:
        if not isinstance(source, Image.Image):
            image.verify()


def _upright_rgb(source: ImageSource) -> Image.Image:
    with _opened(source) as image:
        upright = image if isinstance(source, Image.Image) else ImageOps.exif_transpose(image)
        return upright.convert("RGB")


@contextmanager
def _opened(source: ImageSource) -> Iterator[Image.Image]:
    """Yield an opened image, whose pixels are not decoded yet; raise PromptError for any error of reading it."""
    if not isinstance(source, Image.Image | str | Path):
        raise PromptError(f"an image is a file or Pillow's Image, not {type(source).__name__}; give one of these")
    try:
        if isinstance(source, Image.Image):
            if not (source.width and source.height):
                raise PromptError(f"an image of {source.width} × {source.height} pixels is empty; give another")
            yield source
            return
        _check_file(Path(source))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `MOST_PIXELS` is below its limit
            image = Image.open(source, formats=[name for name in FORMATS if name in _known_formats()])
        with image:
            if image.width * image.height > MOST_PIXELS:
                raise PromptError(f"{source}: has {image.width:,} × {image.height:,} pixels; {SMALLER}")
            yield image
    except PromptError:
        raise
    except Image.DecompressionBombError:
        raise PromptError(f"{source}: has too many pixels; {SMALLER}") from None
    except Exception as error:  # Pillow raises whatever its decoders raise
        place = "an image" if isinstance(source, Image.Image) else source
        raise PromptError(f"{place}: is no image that can be read ({first_line(error)}); give another file") from None


def _check_file(path: Path) -> None:
    """Raise PromptError for a file that is too large, or is no regular one, such as a pipe that never ends."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise PromptError(f"{path}: is no image that can be read (it is no regular file); give another file")
    if status.st_size > MOST_BYTES:
        raise PromptError(f"{path}: has {status.st_size:,} bytes; {SMALLER}")


@functools.cache
def _known_formats() -> frozenset[str]:
    """Return the formats that this version of Pillow opens."""
    Image.init()
    return frozenset(Image.OPEN)
