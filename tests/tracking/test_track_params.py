"""The tracker's parameters as JSON."""

import json

import pytest

from rmpe_jax.errors import UserError
from rmpe_jax.tracking import TrackParams
from rmpe_jax.tracking.params import load_params, params_to_dict


def test_there_and_back(tmp_path):
    path = tmp_path / "params.json"
    params = TrackParams(sure_score=0.123456789012345, max_missed=17.5, motion_gate=3.0)
    path.write_text(json.dumps(params_to_dict(params)))
    assert load_params(path) == params


def test_what_a_file_lacks_keeps_its_default(tmp_path):
    path = tmp_path / "params.json"
    path.write_text('{"max_missed": 100}')
    assert load_params(path) == TrackParams(max_missed=100.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"max_mised": 3}', "tracking has no parameter 'max_mised': use sure_score, "),
        ('{"max_missed": "3"}', "max_missed is '3': use a number from 0 to 1e+06"),
        ('{"max_missed": true}', "max_missed is True: use a number from 0 to 1e+06"),
        ('{"box_noise": 0}', "box_noise is 0: use a number from 0.0001 to 100"),
        ('{"birth_score": 1.01}', "birth_score is 1.01: use a number from 0 to 1"),
        ('{"birth_score": NaN}', "birth_score is nan: use a number from 0 to 1"),
        ("[0.5]", "tracking parameters are not an object such as"),
        ("{", "is not JSON"),
        (None, "no file of tracking parameters"),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path, content, message):
    path = tmp_path / "params.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError) as error:
        load_params(path)
    (line,) = str(error.value).splitlines()
    assert message in line
    assert str(path) in line
