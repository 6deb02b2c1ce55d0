"""Classical machine learning as Responses models: one scikit-learn pipeline or ONNX file, as a `Backend`.

    predictor   what a loaded model is, whatever file it came from
    skops_file  scikit-learn, saved with skops: types that nobody vouched for are refused by name
    onnx_file   ONNX files, run by onnxruntime
    rows        what a request says, as rows of the model's features
    tables      CSV and Parquet
    published   the schemas that a model publishes
    forms       what an answer looks like: as published, or as the caller's own schema wants it
    batching    rows of many requests, predicted together
    backend     puts the parts together
    verdict     the label of one text, for routing and for the guard
    demos       small models to try it with

Nothing here samples, knows a token or loads a pickle.
"""

from ore.backends.classical.backend import Classical, ClassicalOptions
from ore.backends.classical.verdict import Labelling, Refusing

__all__ = ["Classical", "ClassicalOptions", "Labelling", "Refusing"]
