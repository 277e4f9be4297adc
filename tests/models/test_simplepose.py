import numpy as np

from rmpe_jax.models.simplepose import SimplePose


def test_simplepose(assert_twins):
    def simplepose(twin, x):
        x = twin.resnet18(x)
        for index in (0, 3, 6):
            x = twin.deconv(x, f"deconv_layers.{index}")
            x = np.maximum(twin.norm(x, f"deconv_layers.{index + 1}"), 0)
        return twin.conv(x, "final_layer")

    assert_twins(SimplePose(5, depth=18), (64, 32), 3, simplepose)
