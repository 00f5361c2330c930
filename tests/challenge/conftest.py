"""A tiny data root with the challenge's layout and its ground truth, and the submission that answers it perfectly."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from perfect_submission import CLASSES, SIZE, write_perfect


@pytest.fixture
def root(tmp_path):
    """Three street scenes, four cars, three sign photos; every class of the scenes occurs, some pixels are ignored."""
    rng = np.random.default_rng(0)
    test = tmp_path / "data" / "track1_test_data"
    truth = test / "ground_truth"
    for folder in ("seg/images/test", "cls/test", "dec/test", "ground_truth/seg"):
        (test / folder).mkdir(parents=True)
    picture = np.zeros((*SIZE, 3), np.uint8)
    for name in ("b", "a", "c"):
        label_map = (np.add.outer(np.arange(SIZE[0]), np.arange(SIZE[1])) // 5 % 19).astype(np.uint8)
        label_map[rng.random(SIZE) < 0.05] = 255
        cv2.imwrite(str(test / f"seg/images/test/{name}.jpg"), picture)
        cv2.imwrite(str(truth / f"seg/{name}.png"), label_map)
    for index in range(4):
        cv2.imwrite(str(test / f"cls/test/{index}.jpg"), picture)
    (truth / "cls.txt").write_text("".join(f"{index}.jpg {index * 7}\n" for index in range(4)))
    names = ["z.jpg", "x.jpg", "y.jpg"]
    boxes = [[2, 3, 20.5, 10], [30, 10, 12, 30.25], [5, 20, 9, 9], [40, 2, 30, 40]]
    for name in names:
        cv2.imwrite(str(test / "dec/test" / name), picture)
    (test / "dec/test.txt").write_text("\n".join(names) + "\n")
    coco = {
        "images": [{"id": i + 1, "file_name": n, "height": SIZE[0], "width": SIZE[1]} for i, n in enumerate(names)],
        "categories": [{"id": i, "name": n} for i, n in zip(CLASSES.ids, CLASSES.names, strict=True)],
        "annotations": [
            {"id": i + 1, "image_id": i % 3 + 1, "category_id": CLASSES.ids[i % 2], "bbox": box,
             "area": box[2] * box[3], "iscrowd": 0}
            for i, box in enumerate(boxes)
        ],
    }  # fmt: skip
    (truth / "dec.json").write_text(json.dumps(coco))
    (test / "dec/val.json").write_text(json.dumps({**coco, "annotations": []}))
    return SimpleNamespace(path=tmp_path / "data", truth=truth, coco=coco, out=tmp_path / "out" / "pred.json")


@pytest.fixture
def perfect(root):
    """The path of a perfect submission in the list form."""
    return write_perfect(root, root.out)


@pytest.fixture
def edit(perfect):
    """Returns a function that changes the perfect submission's content in place and returns its path."""

    def edit(change):
        content = json.loads(perfect.read_text())
        content = change(content) or content
        perfect.write_text(json.dumps(content))
        return perfect

    return edit
