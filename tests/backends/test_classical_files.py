"""Models out of skops and ONNX files: what is refused, what each kind says, and that it is what the library says."""

import io
import json
import os
import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from classical_models import named, saved, sentences, text_classifier, wine_classifier, wine_table
from ore.backends.classical.predictor import Feature, Predictor, Row
from ore.backends.classical.tables import MOST_BYTES, read_table
from ore.errors import InvalidRequest, StartupError

numpy = pytest.importorskip("numpy")
pytest.importorskip("sklearn")
pytest.importorskip("skops")

from sklearn.cluster import DBSCAN, KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import IsolationForest, RandomForestClassifier, RandomForestRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from ore.backends.classical.onnx_file import load_onnx
from ore.backends.classical.skops_file import load_skops

IRIS = load_iris()
pytestmark = pytest.mark.filterwarnings("ignore:X does not have valid feature names")


def loaded(model: Any, folder: Path) -> Predictor:
    return load_skops("m", saved(model, folder / "m.skops"))


def refused(model: Any, folder: Path) -> str:
    with pytest.raises(StartupError) as caught:
        loaded(model, folder)
    assert "\n" not in caught.value.message
    return caught.value.message


def rows_of(matrix: Any) -> list[Row]:
    return [tuple(row) for row in matrix.tolist()]


# What is refused


def test_types_that_are_not_scikit_learns_are_refused_by_name(tmp_path: Path) -> None:
    """A function of the operating system would run when the model is asked."""
    assert f"{os.name}.system" in refused(make_pipeline(FunctionTransformer(os.system), Ridge()), tmp_path)


def test_functions_are_refused_wherever_they_come_from(tmp_path: Path) -> None:
    """scikit-learn has functions that open files and connections."""
    from sklearn.datasets import load_svmlight_file

    model = make_pipeline(FunctionTransformer(load_svmlight_file), Ridge())
    assert "load_svmlight_file" in refused(model, tmp_path)


def test_what_is_no_skops_file_is_refused(tmp_path: Path) -> None:
    """A pickle above all."""
    import pickle

    path = tmp_path / "m.skops"
    path.write_bytes(pickle.dumps(Ridge()))
    with pytest.raises(StartupError, match=r"no skops file that can be read .*skops\.io\.dump"):
        load_skops("m", path)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: DBSCAN().fit(IRIS.data), "cannot predict new rows"),
        (lambda: StandardScaler().fit(IRIS.data), "cannot predict new rows"),
        (Ridge, "which features it takes"),
        (
            lambda: MultiOutputClassifier(LogisticRegression()).fit(IRIS.data[:, :2], IRIS.data[:, 2:].round()),
            "several labels at once",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_serve_is_refused(model: Any, said: str, tmp_path: Path) -> None:
    assert said in refused(model(), tmp_path)


# What each kind says


def test_a_classifier_says_what_scikit_learn_says(tmp_path: Path) -> None:
    """Labels and probabilities, number by number; the version is of the file."""
    rows, names, _ = wine_table()
    model, found = wine_classifier(), loaded(wine_classifier(), tmp_path)
    assert found.kind == "classification"
    assert [feature.name for feature in found.features] == names
    assert re.fullmatch(r"sha256:[0-9a-f]{12}", found.version)
    answers = found.predict(rows_of(rows))
    assert [answer["label"] for answer in answers] == model.predict(rows).tolist()
    assert [list(answer["probabilities"].values()) for answer in answers] == model.predict_proba(rows).tolist()


def test_missing_values_are_nan(tmp_path: Path) -> None:
    rows, _, _ = wine_table()
    matrix = rows.copy()
    matrix[:, 3] = numpy.nan
    holes = [tuple(None if value != value else value for value in row) for row in matrix.tolist()]
    answers = loaded(wine_classifier(), tmp_path).predict(holes)
    assert [answer["label"] for answer in answers] == wine_classifier().predict(matrix).tolist()


def test_a_text_pipeline_takes_texts(tmp_path: Path) -> None:
    texts, _ = sentences(50, seed=2)
    found = loaded(text_classifier(), tmp_path)
    assert found.is_text
    assert [answer["label"] for answer in found.predict(texts)] == text_classifier().predict(texts).tolist()


def test_a_classifier_without_probabilities_has_none(tmp_path: Path) -> None:
    found = loaded(LinearSVC().fit(IRIS.data, IRIS.target), tmp_path)
    assert not found.probabilities
    assert found.predict(rows_of(IRIS.data[:1])) == [{"label": 0}]


def test_regression_of_one_number_and_of_several(tmp_path: Path) -> None:
    """Also where the one was fitted as a column."""
    rows, target = load_diabetes(return_X_y=True)
    single = loaded(RandomForestRegressor(5, random_state=0).fit(rows, target), tmp_path)
    forest = RandomForestRegressor(5, random_state=0).fit(rows, target)
    assert [answer["prediction"] for answer in single.predict(rows_of(rows))] == forest.predict(rows).tolist()
    column = loaded(LinearRegression().fit(rows, target[:, None]), tmp_path)
    assert isinstance(column.predict(rows_of(rows[:1]))[0]["prediction"], float)
    several = loaded(LinearRegression().fit(rows, numpy.c_[target, target]), tmp_path)
    assert several.outputs == 2
    assert len(several.predict(rows_of(rows[:1]))[0]["prediction"]) == 2


def test_clusters_and_outliers(tmp_path: Path) -> None:
    clusters = KMeans(3, n_init=1, random_state=0).fit(IRIS.data)
    found = loaded(clusters, tmp_path)
    assert found.kind == "clustering"
    assert [answer["cluster"] for answer in found.predict(rows_of(IRIS.data))] == clusters.predict(IRIS.data).tolist()
    forest = IsolationForest(n_estimators=10, random_state=0).fit(IRIS.data)
    found = loaded(forest, tmp_path)
    assert found.kind == "outliers"
    answers = found.predict([*rows_of(IRIS.data), (99.0, 99.0, 99.0, 99.0)])
    assert [answer["score"] for answer in answers[:-1]] == forest.decision_function(IRIS.data).tolist()
    assert answers[-1]["outlier"] is True


def test_internal_types_of_scikit_learn_are_its_own(tmp_path: Path) -> None:
    """Trees, distances and searches are compiled classes that skops does not list."""
    for model in (RandomForestClassifier(3), KNeighborsClassifier(), GridSearchCV(Ridge(), {"alpha": [1.0]})):
        assert len(loaded(model.fit(IRIS.data, IRIS.target), tmp_path).features) == 4


def mixed_pipeline() -> tuple[Any, list[tuple[Any, ...]]]:
    """Text, categories and numbers in columns of one table."""
    rows = [("red", 1.0, "a fine day", None), ("blue", 2.0, "rain again", 3.0), ("red", None, "a day", 5.0)] * 4
    matrix = numpy.array(rows, dtype=object)
    matrix[matrix == None] = numpy.nan  # noqa: E711
    columns = ColumnTransformer(
        [
            ("colour", OneHotEncoder(handle_unknown="ignore"), [0]),
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), [1, 3]),
            ("text", TfidfVectorizer(), 2),
        ]
    )
    model = make_pipeline(columns, LogisticRegression()).fit(matrix, ["x", "y", "x"] * 4)
    columns.feature_names_in_ = numpy.array(["colour", "weight", "note", "height"], dtype=object)
    return model, rows


def test_columns_have_the_types_that_their_transformers_tell(tmp_path: Path) -> None:
    """Names and types, and missing values of each."""
    model, rows = mixed_pipeline()
    found = loaded(model, tmp_path)
    assert found.features == (
        Feature("colour", "string"),
        Feature("weight"),
        Feature("note", "string"),
        Feature("height"),
    )
    assert [answer["label"] for answer in found.predict(rows)] == ["x", "y", "x"] * 4
    assert found.predict([("green", None, None, None)])[0]["label"] in ("x", "y")


# Parquet


def parquet(table: Any, **how: Any) -> dict[str, Any]:
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(table, file, **how)
    return {"type": "input_file", "file_data": b64encode(file.getvalue()).decode()}


def test_parquet_keeps_its_types() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"b": ["x", None], "a": [1, 2], "c": [0.5, None]})
    found = read_table(parquet(table), sorted, 10)
    assert (list(found.rows), found.is_text) == ([(1, "x", 0.5), (2, None, None)], False)


def test_parquet_is_bounded_before_it_is_read() -> None:
    """In rows, in bytes, and in what one text that stands in all rows comes to."""
    pyarrow = pytest.importorskip("pyarrow")
    with pytest.raises(InvalidRequest, match="more than 10 rows"):
        read_table(parquet(pyarrow.table({"a": range(11)})), list, 10)
    zeros = pyarrow.table({"a": numpy.zeros(MOST_BYTES // 8 + 1)})
    with pytest.raises(InvalidRequest, match="too large when it is unpacked"):
        read_table(parquet(zeros, use_dictionary=False, compression="zstd"), list, MOST_BYTES)
    texts = read_table(parquet(pyarrow.table({"a": ["x" * 100_000] * 1000})), list, 1000)
    assert len({id(row[0]) for row in texts.rows}) == 1
    with pytest.raises(InvalidRequest, match="nested"):
        read_table(parquet(pyarrow.table({"a": [[1]]})), list, 10)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_table({"file_data": b64encode(b"PAR1 and nothing more").decode()}, list, 10)


# ONNX


def converted(model: Any, folder: Path, initial: Any, **more: Any) -> Path:
    skl2onnx = pytest.importorskip("skl2onnx")
    pytest.importorskip("onnxruntime")
    path = folder / "m.onnx"
    path.write_bytes(skl2onnx.convert_sklearn(model, initial_types=initial, **more).SerializeToString())
    return path


def floats(width: int) -> list[Any]:
    types = pytest.importorskip("skl2onnx.common.data_types")
    return [("rows", types.FloatTensorType([None, width]))]


@pytest.mark.filterwarnings("ignore")
def test_onnx_says_what_scikit_learn_says(tmp_path: Path) -> None:
    """The same labels on every row, and probabilities to the precision of 32 bits; the sidecar names the features."""
    rows, names, labels = wine_table()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(rows, labels)
    path = converted(model, tmp_path, floats(len(names)))
    (tmp_path / "m.onnx.json").write_text(json.dumps({"features": names}))
    found = load_onnx("m", path)
    assert (found.kind, found.probabilities) == ("classification", True)
    assert [feature.name for feature in found.features] == names
    answers = found.predict(rows_of(rows))
    assert [answer["label"] for answer in answers] == model.predict(rows).tolist()
    shares = numpy.array([[answer["probabilities"][name] for name in model.classes_] for answer in answers])
    assert numpy.abs(shares - model.predict_proba(rows)).max() < 1e-5


@pytest.mark.filterwarnings("ignore")
def test_onnx_with_a_matrix_of_probabilities_needs_its_classes(tmp_path: Path) -> None:
    """A sidecar tells them; without one the refusal says what to write."""
    model = LogisticRegression(max_iter=500).fit(IRIS.data, IRIS.target)
    path = converted(model, tmp_path, floats(4), options={"zipmap": False})
    with pytest.raises(StartupError, match="does not say what it predicts"):
        load_onnx("m", path)
    sidecar = tmp_path / "m.onnx.json"
    sidecar.write_text('{"kind": "classification"}')
    with pytest.raises(StartupError, match="does not say which classes"):
        load_onnx("m", path)
    sidecar.write_text('{"kind": "classification", "classes": ["setosa", "versicolor", "virginica"]}')
    answers = load_onnx("m", path).predict(rows_of(IRIS.data))
    assert [answer["label"] for answer in answers] == IRIS.target_names[model.predict(IRIS.data)].tolist()
    sidecar.write_text("[]")
    with pytest.raises(StartupError, match="cannot be used"):
        load_onnx("m", path)


@pytest.mark.filterwarnings("ignore")
def test_onnx_regression_and_texts(tmp_path: Path) -> None:
    """Kinds that the outputs tell by themselves."""
    types = pytest.importorskip("skl2onnx.common.data_types")
    rows, target = load_diabetes(return_X_y=True)
    model = Ridge().fit(rows, target)
    found = load_onnx("m", converted(model, tmp_path, floats(rows.shape[1])))
    assert (found.kind, found.features[0].name) == ("regression", "x0")
    told = [answer["prediction"] for answer in found.predict(rows_of(rows))]
    assert numpy.allclose(told, model.predict(rows), rtol=1e-4)
    texts, _ = sentences(50, seed=3)
    model = text_classifier()  # in a locale that every machine has
    options = {id(model.steps[0][1]): {"locale": "C"}}
    path = converted(model, tmp_path, [("text", types.StringTensorType([None, 1]))], options=options)
    found = load_onnx("m", path)
    assert found.is_text
    assert [answer["label"] for answer in found.predict(texts)] == text_classifier().predict(texts).tolist()


@pytest.mark.filterwarnings("ignore")
def test_onnx_with_an_input_for_each_feature(tmp_path: Path) -> None:
    """Their names and types are the features'; only a number may be missing."""
    types = pytest.importorskip("skl2onnx.common.data_types")
    rows = numpy.array([("red", 1.0), ("blue", 2.0)] * 5, dtype=object)
    columns = ColumnTransformer([("c", OneHotEncoder(), [0]), ("n", StandardScaler(), [1])])
    model = make_pipeline(columns, LogisticRegression()).fit(rows, ["x", "y"] * 5)
    initial = [("colour", types.StringTensorType([None, 1])), ("weight", types.FloatTensorType([None, 1]))]
    path = converted(model, tmp_path, initial)
    with pytest.raises(StartupError, match="does not say which classes"):  # a blank row tells nothing
        load_onnx("m", path)
    (tmp_path / "m.onnx.json").write_text('{"classes": ["x", "y"]}')
    found = load_onnx("m", path)
    with pytest.raises(ValueError, match="Unknown Category"):
        found.predict([("green", 1.0)])
    assert found.features == (Feature("colour", "string", nullable=False), Feature("weight"))
    assert [answer["label"] for answer in found.predict([("red", 1.0), ("blue", 2.0)])] == ["x", "y"]


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(StartupError, match="no ONNX file that can be run"):
        load_onnx("m", tmp_path / "m.onnx")


def test_names_are_of_the_model_or_counted(tmp_path: Path) -> None:
    """A model that was fitted without names has x0, x1 and so on, as scikit-learn counts them."""
    model = LogisticRegression(max_iter=500).fit(IRIS.data, IRIS.target)
    assert [feature.name for feature in loaded(model, tmp_path).features] == ["x0", "x1", "x2", "x3"]
    assert loaded(named(model, ["a", "b", "c", "d"]), tmp_path).features[0] == Feature("a")
