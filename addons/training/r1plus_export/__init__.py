"""Exports of an engine: folders of other ecosystems that generate text, each measured on the engine's golden suite.

`r1plus engine export` calls it. The only package that imports transformers, ONNX Runtime GenAI and Keras, and only in
the modules of the targets, when they run.
"""
