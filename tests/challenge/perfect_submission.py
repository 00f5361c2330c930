"""Writes the submission that answers the tiny data root of conftest.py perfectly."""

import cv2
import numpy as np

from ppmtl.challenge import SubmissionWriter
from ppmtl.structures import ClassList, ClassProbs, Detections, SegMap

SIZE = (48, 80)
CLASSES = ClassList(("stop", "yield"), (3, 8))


def write_perfect(root, path, **options):
    """Returns the path, written by the writer with these options."""
    with SubmissionWriter(path, fingerprint={"weights": "w1"}, **options) as writer:
        for file in sorted((root.truth / "seg").glob("*.png")):
            label_map = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            writer.add_segmentation(f"{file.stem}.jpg", SegMap(np.where(label_map == 255, 0, label_map)))
        for line in (root.truth / "cls.txt").read_text().splitlines():
            name, label = line.split()
            writer.add_classification(name, ClassProbs(np.eye(196, dtype=np.float32)[int(label)]))
        for image in root.coco["images"]:
            rows = [row for row in root.coco["annotations"] if row["image_id"] == image["id"]]
            boxes = np.array([row["bbox"] for row in rows], np.float32).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            labels = np.array([CLASSES.ids.index(row["category_id"]) for row in rows], np.int64)
            writer.add_detection(image["id"], Detections(boxes, np.full(len(rows), 0.9, np.float32), labels), CLASSES)
        return writer.finish()
