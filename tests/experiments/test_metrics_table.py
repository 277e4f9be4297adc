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
    nobody = metrics_table({"a": {"AP": -1.0, "AP50": -1.0}}).splitlines()[-1]
    assert nobody == "-1: nobody is evaluated: all people are crowds or have no labeled joint"
