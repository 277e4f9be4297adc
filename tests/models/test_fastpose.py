import numpy as np
import pytest

from rmpe_jax.models.fastpose import Duc, FastPose


def duc(twin, x, name=""):
    y = np.maximum(twin.norm(twin.conv(x, f"{name}conv"), f"{name}bn"), 0)
    return twin.ops.pixel_shuffle(y)


def test_duc(assert_twins):
    assert_twins(Duc(12), (5, 4), 6, duc)


@pytest.mark.slow
def test_fastpose(assert_twins):
    def fastpose(twin, x):
        x = twin.ops.pixel_shuffle(twin.resnet18(x))
        return twin.conv(duc(twin, duc(twin, x, "duc1."), "duc2."), "conv_out")

    assert_twins(FastPose(5, depth=18, duc_features=(32, 16)), (64, 32), 3, fastpose)
