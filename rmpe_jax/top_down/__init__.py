"""From images and boxes to poses on the device: crop, network, flip test, decoding, NMS."""
