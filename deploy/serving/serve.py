"""Serves an exported bundle over HTTP, with a page for people; on this machine only unless --host says otherwise.

python deploy/serving/serve.py --model_dir output_inference/allinone_demo
curl -F images=@street.jpg -F tasks=det,cls http://127.0.0.1:8000/v1/predict
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ppmtl_service.options import Options

from ppmtl import flags

KEY_VARIABLE = "PPMTL_API_KEY"
_HELP = {
    "max_bytes": "of one request",
    "max_images": "per request",
    "max_pixels": "of one picture, and of all that are worked on at one moment",
    "max_side": "longer side of one picture in pixels",
    "queue_size": "pictures admitted at once; beyond it 429",
    "timeout_s": "seconds per request; beyond it 504",
    "max_batch": "pictures that the network sees at once; 1 = one at a time",
    "max_delay_ms": "how long a picture waits for others to share its run",
    "workers": "threads that decode, resize and encode pictures",
    "drain_s": "seconds to go on listening after SIGTERM with /readyz at 503, for load balancers",
}


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    # Until the server has its own: process 1 of a container ignores a signal that nobody handles
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    arguments = _parser().parse_args(argv)
    limits = {name: getattr(arguments, name) for name in _HELP}
    options = Options(**limits, api_key=read_api_key(arguments.api_key_file))
    # Read by OpenCV when it is imported: a picture whose header lied is refused inside the decoder, too.
    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(options.max_pixels)

    import cv2
    from ppmtl_service.model import from_bundle
    from ppmtl_service.server import serve

    cv2.setNumThreads(1)  # many pictures are worked on at once; each with many threads would only make them wait
    model = from_bundle(
        Path(arguments.model_dir),
        arguments.tasks,
        per_task_size=arguments.per_task_size,
        device=arguments.device.lower(),
        cpu_threads=arguments.cpu_threads,
        bf16=arguments.enable_bf16,
        run_mode=arguments.run_mode,
        engine=arguments.engine,
    )
    serve(model, options, arguments.host, arguments.port)
    return 0


def _parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--model_dir", required=True, metavar="DIR", help="bundle of tools/export_model.py")
    result.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine only")
    result.add_argument("--port", type=int, default=8000, help="default: 8000; 0 = a free one, see the log")
    result.add_argument("--tasks", type=flags.names, metavar="seg,det", help="serve only these tasks")
    flags.add_switch(result, "--per_task_size", "show a picture to every task at its own size, as evaluation does: more "
                     "exact, and one run of the trunk per size (default: one size for all, one run)")  # fmt: skip
    result.add_argument("--device", default="cpu", help="cpu (default), gpu or gpu:1")
    result.add_argument("--cpu_threads", type=int, metavar="N", help="of the network (default: every core)")
    flags.add_switch(result, "--enable_bf16", "bfloat16 on CPUs that have it")
    result.add_argument("--run_mode", default="paddle", choices=["paddle", "trt_fp32", "trt_fp16"],
                        help="trt_*: through TensorRT, on a GPU (default: paddle)")  # fmt: skip
    result.add_argument("--engine", choices=["paddle", "onnxruntime", "openvino"],
                        help="default: ONNX Runtime for .onnx bundles, Paddle Inference for the others")  # fmt: skip
    result.add_argument("--api_key_file", metavar="FILE", help=f"ask for the key in this file; or set {KEY_VARIABLE}. "
                        "Never on the command line, where every user of the machine can read it")  # fmt: skip
    for field in fields(Options):
        if field.name in _HELP:
            kind = type(field.default)
            result.add_argument(f"--{field.name}", type=kind, default=field.default, metavar="N",
                                help=f"{_HELP[field.name]} (default: {field.default})")  # fmt: skip
    return result


def read_api_key(file: str | None) -> bytes | None:
    """Returns the key in ``file`` if one is named, else in the environment, else None; without blanks around it."""
    if file is not None:
        return Path(file).read_bytes().strip()
    return os.environb[KEY_VARIABLE.encode()].strip() if KEY_VARIABLE in os.environ else None


if __name__ == "__main__":
    flags.run(main)
