"""Trained modules as files that run without this project: ONNX, OpenVINO, TorchScript, TensorRT."""
