"""Images as the checkpoint's image processor prepares them, and which tokens see which of their tiles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageOps

from jaxtrace.errors import CheckpointError, PromptError, first_line
from jaxtrace.models.config import VisionConfig
from jaxtrace.models.images import Images

if TYPE_CHECKING:
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

FILES = ("preprocessor_config.json", "processor_config.json")

ImageSource = Image.Image | Path | str


class ImageProcessor:
    """The Hugging Face image processor of Llama 3.2 Vision: resized, padded, normalised and cut into tiles."""

    def __init__(self, processor: MllamaImageProcessorPil):
        self.hf = processor

    @classmethod
    def load(cls, directory: Path, vision: VisionConfig) -> ImageProcessor | None:
        """The image processor of a checkpoint directory, or None where it has none.

        Raises:
          CheckpointError: it cannot be read, or makes other tiles than the model takes.
        """
        if not any((directory / name).exists() for name in FILES):
            return None
        try:
            settings, _ = _hugging_face().get_image_processor_dict(directory, local_files_only=True)
            if not isinstance(settings, dict):
                raise TypeError("its config is no JSON object")
            kind = settings.get("image_processor_type", "Mllama")
            if not str(kind).startswith("Mllama"):
                raise ValueError(f"image_processor_type={kind!r}, which is not Mllama's")
            processor = _hugging_face()(**settings)
            _check_steps(processor)
        except Exception as error:  # transformers raises whatever its parsers raise
            raise CheckpointError(f"{directory}: the image processor cannot be read ({first_line(error)})") from None
        made = (processor.max_image_tiles, processor.size["height"])
        if made != (vision.max_tiles, vision.image_size):
            raise CheckpointError(
                f"{directory}: the image processor makes {made[0]} tiles of {made[1]} pixels, and the model takes "
                f"{vision.max_tiles} of {vision.image_size}; download the checkpoint again"
            )
        return cls(processor)

    @classmethod
    def of(cls, vision: VisionConfig) -> ImageProcessor:
        """transformers' default processor for an image encoder that has none of its own."""
        size = {"height": vision.image_size, "width": vision.image_size}
        return cls(_hugging_face()(size=size, max_image_tiles=vision.max_tiles))

    def __call__(self, prompts: Sequence[Sequence[ImageSource]]) -> tuple[Images, list[list[int]]]:
        """The images of a batch of prompts, and how many tiles each has.

        Args:
          prompts: for each its images, Pillow's or files; at least one has any.

        Raises:
          PromptError: a file is not a readable image.
        """
        rows = [[_open(source) for source in prompt] for prompt in prompts]
        found = cast(Any, self.hf)(images=rows, return_tensors="np")
        ratio, mask = found["aspect_ratio_ids"].astype(np.int32), found["aspect_ratio_mask"].astype(bool)
        return Images(found["pixel_values"], ratio, mask), found["num_tiles"]


def tile_visibility(
    token_ids: Sequence[int], num_tiles: Sequence[int], max_images: int, max_tiles: int, image_token: int
) -> Bool[np.ndarray, "T I*M"]:
    """Which tiles each token of a prompt sees, those of image i at i · max_tiles and on.

    A token sees the last image before it, itself included, and of images that follow each other without text between
    them all. Tokens that are generated see what the last token of the prompt sees.

    Args:
      token_ids: of the prompt.
      num_tiles: of each of its images, in order.
      max_images: I, of the batch.
      max_tiles: M, of the encoder.
      image_token: the id that stands for an image; there are as many as images.
    """
    places = [position for position, token in enumerate(token_ids) if token == image_token]
    visible = np.zeros((len(token_ids), max_images, max_tiles), bool)
    end = following = len(token_ids)
    for image in reversed(range(len(places))):
        if places[image] + 1 < following:
            end = following
        following = places[image]
        visible[following:end, image, : num_tiles[image]] = True
    return visible.reshape(len(token_ids), -1)


def _hugging_face() -> type[MllamaImageProcessorPil]:
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil  # takes seconds

    return MllamaImageProcessorPil


def _check_steps(processor: MllamaImageProcessorPil) -> None:
    """Raises ValueError, or what the processor raises, where it cannot make numbers of an image."""
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
    """Refuses what is no image, without preparing it; a file that is cut short may only show when it is read.

    Args:
      source: Pillow's image or a file.

    Raises:
      PromptError: it is neither, is empty, or is not a readable image.
    """
    with _image(source) as image:
        if not isinstance(source, Image.Image):
            image.verify()


def _open(source: ImageSource) -> Image.Image:
    with _image(source) as image:
        upright = image if isinstance(source, Image.Image) else ImageOps.exif_transpose(image)
        return upright.convert("RGB")


@contextmanager
def _image(source: ImageSource) -> Iterator[Image.Image]:
    """An image that may be read here; raises PromptError also for what reading it raises."""
    if isinstance(source, Image.Image):
        if not (source.width and source.height):
            raise PromptError(f"an image of {source.width} × {source.height} pixels is empty; give another")
        yield source
        return
    if not isinstance(source, str | Path):
        raise PromptError(f"an image is a file or Pillow's Image, not {type(source).__name__}; give one of these")
    try:
        with Image.open(source) as image:
            yield image
    except Exception as error:  # Pillow raises whatever its decoders raise
        raise PromptError(f"{source}: is no image that can be read ({first_line(error)}); give another file") from None
