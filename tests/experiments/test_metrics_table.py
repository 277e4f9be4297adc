from rmpe_jax.experiments.evaluate import metrics_table


def test_fractions_have_three_digits_and_percent_one():
    metrics = {"AP": 0.12345, "ARM": 0.5, "foot/AP": 0.6789, "AP_easy": 0.25, "PCKh": 87.654}
    assert metrics_table({"set": metrics}).splitlines() == [
        "| | AP | ARM | foot/AP | AP_easy | PCKh |",
        "|---|---|---|---|---|---|",
        "| set | 0.123 | 0.500 | 0.679 | 0.250 | 87.7 |",
    ]


def test_minus_one_is_explained():
    rows = {
        "a": {"AP": 0.5, "APM": -1.0, "face/AP": -1.0},
        "b": {"AP": 0.5, "APM": 0.0, "face/AP": 0.0},
    }
    assert metrics_table(rows).splitlines()[-2:] == [
        "",
        "-1: nobody in the data counts for APM, face/AP",
    ]
    reason = "all people are crowds or have no labeled joint"
    nobody = {"AP": -1.0, "APM": -1.0, "face/AP": -1.0}
    assert metrics_table({"c": nobody}).splitlines()[-1] == f"-1: nobody is evaluated: {reason}"
    assert metrics_table({"b": rows["b"], "c": nobody}).splitlines()[-2:] == [
        "",
        f"-1: nobody is evaluated in c: {reason}",
    ]
    assert metrics_table({"a": rows["a"], "c": nobody}).splitlines()[-4:] == [
        "",
        f"-1: nobody is evaluated in c: {reason}",
        "",
        "-1: nobody in the data counts for APM, face/AP",
    ]
