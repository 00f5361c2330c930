"""What tasks found on an image as entries of COCO results files, which pycocotools' ``loadRes``, FiftyOne and CVAT read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppmtl.tasks.base import Task


def coco_results(
    predictions: Mapping[str, Any], tasks: Mapping[str, Task[Any]], image_id: int, *, threshold: float = 0.0
) -> dict[str, list[dict[str, Any]]]:
    """{task: its entries of a results file} for one image; a task for whose answers COCO has no form is left out.

    Args:
        predictions: {task: prediction} in this image's coordinates.
        tasks: {name: task}, at least those predicted.
        image_id: the image's ``id`` in the COCO file that the results go with.
        threshold: parts that score below it are left out; 0 keeps what average precision needs.

    Returns:
        Per object {"image_id", "category_id", "bbox": [x, y, width, height] pixels of the original image, "score"} and, where
        its mask is known, "segmentation"; per sentence {"image_id", "caption"}.
    """
    rows = {name: tasks[name].coco_results(found, threshold=threshold) for name, found in predictions.items()}
    return {name: [{"image_id": image_id, **row} for row in of] for name, of in rows.items() if of is not None}
