"""Codecs between annotations and a network's outputs: inputs, targets, loss, decoding."""
