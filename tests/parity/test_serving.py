"""The definitions of TensorFlow Serving read our warm-up requests."""

import pytest
import tensorflow as tf

pytest.importorskip("tensorflow_serving", reason="make parity installs it")

from tensorflow_serving.apis import prediction_log_pb2

from bit_tf import exportable
from bit_tf import warmup

pytestmark = pytest.mark.parity


def test_warm_up_requests_are_prediction_logs(tmp_path):
    pictures = exportable.pictures(64)
    warmup.write(tmp_path, pictures)
    records = tf.data.TFRecordDataset(str(tmp_path / warmup.PATH))
    found = [
        prediction_log_pb2.PredictionLog.FromString(record)
        for record in records.as_numpy_iterator()
    ]
    for log, expected in zip(found, (pictures[:1], pictures), strict=True):
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert request.model_spec.signature_name == "serving_default"
        tensor = tf.make_ndarray(request.inputs["image_bytes"])
        assert list(tensor) == expected
        assert list(request.inputs) == ["image_bytes"]
