"""From images and boxes to poses on the device: crops, network, flip test, decoding and NMS."""
