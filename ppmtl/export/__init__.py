"""A trained model -> a bundle: graphs (``graphs``), ONNX (``onnx_graphs``), the folder (``folder``), its check (``verify``)."""
