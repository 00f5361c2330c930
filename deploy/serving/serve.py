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

from ppmtl import cli

KEY_VARIABLE = "PPMTL_API_KEY"
LIMITS = [field for field in fields(Options) if "help" in field.metadata]


def main(argv: Sequence[str]) -> int:
    """The exit code; 0 after SIGTERM, which uvicorn raises once more when it has finished its requests."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # process 1 of a container ignores what nobody handles
    arguments = _parser().parse_args(argv)
    limits = {field.name: getattr(arguments, field.name) for field in LIMITS}
    options = Options(**limits, api_key=read_api_key(arguments.api_key_file))
    # Read by OpenCV when it is imported: an image whose header lied is refused inside the decoder, too.
    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(options.max_pixels)

    import cv2
    from ppmtl_service.model import from_bundle
    from ppmtl_service.server import serve

    cv2.setNumThreads(1)  # many images are worked on at once; each with many threads would only make them wait
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
    result.add_argument("--tasks", type=cli.names, metavar="seg,det", help="serve only these tasks")
    cli.add_per_task_size(result)
    result.add_argument("--device", default="cpu", help="cpu (default), gpu or gpu:1")
    result.add_argument("--cpu_threads", type=int, metavar="N", help="of the network (default: every core)")
    cli.add_switch(result, "--enable_bf16", "bfloat16 on CPUs that have it")
    result.add_argument("--run_mode", default="paddle", choices=["paddle", "trt_fp32", "trt_fp16"],
                        help="trt_*: through TensorRT, on a GPU (default: paddle)")  # fmt: skip
    result.add_argument("--engine", choices=["paddle", "onnxruntime", "openvino"],
                        help="default: ONNX Runtime for .onnx bundles, Paddle Inference for the others")  # fmt: skip
    result.add_argument("--api_key_file", metavar="FILE", help=f"ask for the key in this file; or set {KEY_VARIABLE}. "
                        "Never on the command line, where every user of the machine can read it")  # fmt: skip
    for field in LIMITS:
        result.add_argument(f"--{field.name}", type=type(field.default), default=field.default, metavar="N",
                            help=f"{field.metadata['help']} (default: {field.default})")  # fmt: skip
    return result


def read_api_key(file: str | None) -> bytes | None:
    """The key in ``file`` if one is named, else in the environment, else None; without blanks around it."""
    if file is not None:
        return Path(file).read_bytes().strip()
    return os.fsencode(os.environ[KEY_VARIABLE]).strip() if KEY_VARIABLE in os.environ else None


if __name__ == "__main__":
    cli.run(main)
