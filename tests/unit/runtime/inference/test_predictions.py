"""What predictions say of each sample."""

import json

import numpy as np
import pytest

from runtime.errors import SettingsError
from runtime.inference.predictions import Predictions, check_suffix

OUTPUTS = np.array([[0.0, np.log(3.0)], [1000.0, 0.0]], np.float32)


def test_a_class_has_its_name_and_the_probability_of_its_softmax() -> None:
    labels = np.array([1, 1])
    rows = list(Predictions(OUTPUTS, "classes", ("cat", "dog"), ("a.png", "b.png"), labels).rows())
    assert rows == [
        {"sample": 0, "name": "a.png", "prediction": "dog", "probability": 0.75, "label": "dog"},
        {"sample": 1, "name": "b.png", "prediction": "cat", "probability": 1.0, "label": "dog"},
    ]


def test_values_are_given_as_they_are_each_in_a_column_of_its_own() -> None:
    assert Predictions(OUTPUTS[1:], "values").as_csv() == (
        "sample,prediction_0,prediction_1\n0,1000.0,0.0\n"
    )
    single = Predictions(OUTPUTS[:, 1:], "values", labels=np.array([1.5, 2.5], np.float32))
    assert [row["label"] for row in single.rows()] == [1.5, 2.5]
    assert single.as_csv().startswith("sample,prediction,label\n0,1.09")


def test_files_are_lines_of_json_or_the_outputs_themselves() -> None:
    lines = Predictions(OUTPUTS, "classes").as_file(".jsonl").splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == [1, 0]
    assert Predictions(OUTPUTS, "values").as_file(".npy").endswith(OUTPUTS.tobytes())
    with pytest.raises(SettingsError, match=r"'.txt'; take one of .csv, .jsonl, .npy"):
        check_suffix(".txt")
    with pytest.raises(SettingsError, match="fit no table"):
        Predictions(OUTPUTS[:, :, np.newaxis], "values").as_csv()
