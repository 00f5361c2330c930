"""An exported model as a folder: graphs that Paddle Inference or ONNX Runtime can run, and infer_cfg.yml that explains them."""
