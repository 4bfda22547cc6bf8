import numpy as np
import pytest

from phasewatch.models import ModelError
from phasewatch.models.labels import read_labels


def write(tmp_path, content):
    path = tmp_path / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_classes_in_order_of_the_series(tmp_path):
    path = write(tmp_path, "index,label\n90,liquid\n3,crystal\n50,partly\n4,crystal\n")
    labels = read_labels(path, series_index=np.arange(100))
    assert labels.classes == ("crystal", "partly", "liquid")
    assert labels.index.tolist() == [3, 4, 50, 90]
    assert labels.label.tolist() == [0, 0, 1, 2]
    assert labels.index.dtype == labels.label.dtype == np.int64


def test_given_order(tmp_path):
    path = write(tmp_path, "index,label\n0,b\n5,a\n")
    labels = read_labels(path, series_index=np.arange(6), classes=["a", "b", "c"])
    assert labels.classes == ("a", "b", "c")
    assert labels.label.tolist() == [1, 0]
    one = write(tmp_path, "index,label\n0,b\n")
    assert read_labels(one, series_index=np.arange(6), classes=["a", "b"]).label.tolist() == [1]


@pytest.mark.parametrize(
    "text",
    [
        "index,label\r\n0,0\r\n5,1\r\n",
        "\ufeffindex,label\n0,0\n5,1\n",
        "note, label , index\nx, 0, 0\ny, 1, 5\n",
        'index,label\n\n"0","0"\n5,1\n\n',
    ],
)
def test_dialects(tmp_path, text):
    labels = read_labels(write(tmp_path, text), series_index=np.arange(6))
    assert (labels.index.tolist(), labels.classes) == ([0, 5], ("0", "1"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "index,label\n0,a\n1,a\n\n\n\n400,b\n",
            "labels.csv line 7: index 400: the series has 133",
        ),
        ("index,label\n-1,a\n", "line 2: index -1: the series has 133 patterns"),
        ("index,label\n1,a\n2,b\n1,b\n", "line 4: index 1 has a label in line 2"),
        ("index,label\n1.5,a\n", "line 2: index '1.5' is not a whole number"),
        ("index,label\n,a\n", "line 2: index '' is not"),
        ("index,label\n1,\n", "line 2: the label is empty"),
        ("index,label\n1\n", "line 2: the label is empty"),
        ("index,label\n1,a\n2,a\n", "only one class, 'a'"),
        ("index,label\n", "no label in it"),
        ("", "no column 'index'"),
        ("frame,label\n1,a\n", "no column 'index' .* has frame, label; index,label are wanted"),
        ("index;label\n1;a\n", "no column 'index'"),
        ("index,class\n1,a\n", "no column 'label'"),
        (b"\xff\xfe\x00i", "not a text file in UTF-8"),
        (b"PK\x03\x04\x00\x00", "no column 'index'"),
        ('index,label\n1,"a\n', "not a CSV table"),
        ("index,label\n" + "1," + "a" * 200_000 + "\n", "not a CSV table"),
    ],
)
def test_hostile_files(tmp_path, content, message):
    with pytest.raises(ModelError, match=message) as error:
        read_labels(write(tmp_path, content), series_index=np.arange(133))
    assert "labels.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_label_that_is_no_class(tmp_path):
    path = write(tmp_path, "index,label\n1,a\n2,c\n")
    with pytest.raises(ModelError, match="line 3: label 'c' is not one of a, b"):
        read_labels(path, series_index=np.arange(5), classes=["a", "b"])


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_labels(tmp_path / "none.csv", series_index=np.arange(3))


def test_an_index_is_the_position_in_the_stream(tmp_path):
    series_index = np.array([0, 1, 4, 5])
    labels = read_labels(write(tmp_path, "index,label\n4,a\n5,b\n"), series_index=series_index)
    assert labels.index.tolist() == [2, 3]
    with pytest.raises(ModelError, match="line 2: index 2: that item of the run gave no pattern"):
        read_labels(write(tmp_path, "index,label\n2,a\n5,b\n"), series_index=series_index)
